"""Image sources by index: opened by what a user types, checked, cut into subsets, joined."""
