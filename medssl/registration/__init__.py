"""Labeled scans laid over other scans: pairwise registration, and the prior that warped labels make."""

from medssl.registration.atlas import anatomical_prior, similarity
from medssl.registration.pairwise import LIBRARY, Registration, fails_for_good, register
from medssl.registration.scan import Scan
from medssl.registration.settings import RegistrationSettings

__all__ = [
    "LIBRARY",
    "Registration",
    "RegistrationSettings",
    "Scan",
    "anatomical_prior",
    "fails_for_good",
    "register",
    "similarity",
]
