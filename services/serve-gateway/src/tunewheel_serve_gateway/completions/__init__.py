"""One completion, from what was answered to the log: recorded, kept on the disk, published, found again."""
