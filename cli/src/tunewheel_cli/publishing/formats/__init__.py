"""The forms of other tools' files that are read as examples. Each module has one form; ``recognition`` chooses."""
