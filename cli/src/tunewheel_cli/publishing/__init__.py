"""Files onto the log: JSON Lines, CSV, folders of documents and object stores, streamed; and off it again."""
