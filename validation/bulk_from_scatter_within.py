"""The bulk of G comes from scatter within classes."""

from validation._attributed import study_of_claim

STUDY = study_of_claim("bulk-from-scatter-within", "bulk")
