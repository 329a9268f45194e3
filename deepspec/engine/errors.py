"""What is raised where derivatives are not there, or are not derivatives."""


class WrongDerivative(ArithmeticError):
    """A rule of PyTorch, or of the user, gives something else than difference quotients do."""


class NoSecondDerivative(RuntimeError):
    """There is no right second derivative; products with J = ∂(logits)/∂θ work all the same."""


class WrongSecondDerivative(NoSecondDerivative, WrongDerivative):
    """Second derivatives can be computed, and every way to compute them is wrong."""
