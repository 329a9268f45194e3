"""The bulk of the Hessian comes from E."""

from validation._attributed import study_of_claim

STUDY = study_of_claim("hessian-bulk-from-e", "bulk of Hess")
