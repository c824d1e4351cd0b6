"""What users import for tests of their own."""
