"""Teacher embeddings of augmented views, computed once and replayed: by any number of epochs, students and methods."""
