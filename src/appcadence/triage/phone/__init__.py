"""What one person's phone shows, in words for people who are no data scientists."""
