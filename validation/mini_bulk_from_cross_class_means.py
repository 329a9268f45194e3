"""The C² mini-bulk of G comes from the cross-class means."""

from validation._attributed import study_of_claim

STUDY = study_of_claim("mini-bulk-from-cross-class-means", "mini-bulk", projection=True)
