"""The outliers of the Hessian come from G."""

from validation._attributed import study_of_claim

STUDY = study_of_claim("hessian-outliers-from-g", "outliers of Hess", projection=True)
