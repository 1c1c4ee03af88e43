"""What a machine makes of Shoal, measured, in files that tell what they were measured on: `shoal bench`."""
