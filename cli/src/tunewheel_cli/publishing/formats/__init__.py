"""The forms of other tools' files that are read as examples: one in each module. ``recognition`` chooses."""
