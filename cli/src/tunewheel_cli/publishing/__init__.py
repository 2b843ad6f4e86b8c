"""Files onto the log: JSON Lines, CSV and folders of documents, streamed, line by line."""
