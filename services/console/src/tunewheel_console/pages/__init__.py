"""Pages with addresses: each is drawn from answers of the control API to the same caller."""
