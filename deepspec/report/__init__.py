"""What was found, as figures and as one HTML file."""
