"""The one fold of turns and of models' stages. Services and the command project what they need from it."""
