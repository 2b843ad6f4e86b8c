"""Labels that an alarm asks for: who is told and asked, and how many answers there are."""
