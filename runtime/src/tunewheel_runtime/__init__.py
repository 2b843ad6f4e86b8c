"""What a Tunewheel service needs to live on the bus."""
