"""Labels that people should look at."""
