"""Class structure in the spectra of trained PyTorch classifiers."""
