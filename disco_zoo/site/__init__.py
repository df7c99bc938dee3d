"""Pages for a browser: the zoo as one HTML file, and the look that other pages share."""
