"""What two or more chapters share."""
