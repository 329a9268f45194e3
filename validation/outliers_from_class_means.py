"""The C top outliers of G come from the class means."""

from validation._attributed import study_of_claim

STUDY = study_of_claim("outliers-from-class-means", "outliers", projection=True)
