"""The checks of scikit-learn."""

import warnings

import pytest

pytest.importorskip("sklearn")
from sklearn.utils.estimator_checks import parametrize_with_checks

from jaxfer import FewShotClassifier
from jaxfer.support_set import KINDS

# No check is expected to fail. Their data have any sign and origin, for which lengths
# mean something, so embeddings are used as they are.
CLASSIFIERS = [FewShotClassifier(head=head, normalize="none") for head in KINDS]

with warnings.catch_warnings():
    # It has the methods of a `BaseEstimator` without inheriting from it.
    warnings.filterwarnings("ignore", message=".*does not inherit from.*")
    checks = parametrize_with_checks(
        CLASSIFIERS, expected_failed_checks=lambda _: {}, xfail_strict=True
    )


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore:.*does not inherit from.*")
@checks
def test_scikit_learn(estimator, check):
    check(estimator)
