"""What web and worker both know. Imports neither."""
