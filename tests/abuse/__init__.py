"""What is done to the file system to break it: the machinery of tools/abuse, and of tests that run a little of it."""
