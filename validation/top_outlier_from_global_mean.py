"""The single top outlier of G comes from the global mean."""

from validation._attributed import study_of_claim

STUDY = study_of_claim("top-outlier-from-global-mean", "top outlier", projection=True)
