"""What goes because another is the same, or nearly."""
