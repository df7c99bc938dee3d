"""Networks with weights: students, teachers, classifiers, and how each is loaded by name."""
