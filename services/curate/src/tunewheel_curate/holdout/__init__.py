"""What trains, what is held out, and what was ever held out."""
