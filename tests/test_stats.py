import numpy as np
import pytest
import scipy.stats

from jaxfer import Mean, decouple, over_seeds, paired, summarize, unpaired

# Two-sided 95% quantiles of Student's t, from printed tables.
T = {1: 12.706, 2: 4.303, 4: 2.776, 9: 2.262, 999: 1.962}


@pytest.mark.parametrize("dof", T)
def test_interval_is_students_with_ddof_1(rng, dof):
    values = rng.normal(50, 7, dof + 1)
    sd = np.sqrt(((values - values.mean()) ** 2).sum() / dof)
    summary = summarize(values)
    assert summary.mean == pytest.approx(values.mean())
    assert summary.ci95 == pytest.approx(T[dof] * sd / np.sqrt(dof + 1), rel=3e-4)
    assert summary.n == dof + 1


def test_interval_is_not_that_of_ddof_0():
    # Peers report sd with ddof 0 (and call the interval "std"): of (0, 2), 1 and not
    # the square root of 2.
    assert summarize([0.0, 2.0]).ci95 == pytest.approx(T[1] * 2**0.5 / 2**0.5, rel=1e-4)


def test_interval_covers_95_percent(rng):
    samples = rng.normal(3, 1, (2000, 5))
    inside = [abs(s.mean - 3) <= s.ci95 for s in map(summarize, samples)]
    assert 0.935 < np.mean(inside) < 0.965


def test_one_value_has_no_interval():
    assert summarize([7.0]) == (7.0, None, 1)
    assert str(summarize([7.0])) == "7.00"


def test_empty_and_unfinite_samples_are_refused():
    with pytest.raises(ValueError, match=r"at least one value, got shape \(0,\)"):
        summarize([])
    with pytest.raises(ValueError, match="expected finite values, got nan at 1"):
        summarize([1.0, float("nan")])


def test_ragged_means_merge_exactly():
    one, other = Mean(3.0, 2.0), Mean(10.0, 1.0)
    assert one.merge(other).value == pytest.approx(13 / 3)


def test_an_empty_mean_is_nan():
    assert np.isnan(Mean(0.0, 0).value) and np.isnan(Mean(0.0, 0.0).value)
    assert Mean(0.0, 0.0).merge(Mean(3.0, 2.0)).value == 1.5


def test_pairing_takes_out_the_shared_part(rng):
    hard = rng.normal(60, 10, 100)
    ours, theirs = hard + 1 + rng.normal(0, 0.1, 100), hard
    assert paired(ours, theirs).ci95 < 0.05 < summarize(ours).ci95
    assert paired(ours, theirs).mean == pytest.approx(1, abs=0.05)
    with pytest.raises(ValueError, match=r"equal length, got \(2,\) and \(3,\)"):
        paired([1.0, 2.0], [1.0, 2.0, 3.0])


def test_interval_over_seeds_is_of_the_seeds():
    runs = [[1.0, 3.0], [2.0, 4.0], [3.0, 5.0]]
    assert over_seeds(runs) == summarize([2.0, 3.0, 4.0])


def test_metric_has_what_a_result_file_needs():
    metric = summarize([1.0, 2.0]).metric(over="episodes", unit="%")
    assert set(metric) == {"mean", "ci95", "n", "over", "unit"}


def test_unpaired_is_welchs_test(rng):
    one, other = rng.normal(1, 2, 5), rng.normal(0, 0.5, 9)
    found = unpaired(one, other)
    expected = scipy.stats.ttest_ind(one, other, equal_var=False).confidence_interval()
    assert found.mean == pytest.approx(one.mean() - other.mean())
    assert found.mean - found.ci95 == pytest.approx(expected.low)
    assert found.mean + found.ci95 == pytest.approx(expected.high)
    assert found.n == 5


def test_unpaired_of_one_value_or_of_the_same_has_no_spread():
    assert unpaired([3.0], [1.0, 2.0]) == (1.5, None, 1)
    assert unpaired([2.0, 2.0], [1.0, 1.0]) == (1.0, 0.0, 2)


def test_the_losses_of_transfer_add_up_and_the_larger_one_is_named():
    base, bnb, anb = [60.0, 62.0, 61.0], [59.0, 61.2, 60.1], [55.0, 56.9, 56.2]
    lost = decouple(base, bnb, anb)
    both = lost.co_adaptation.mean + lost.specificity.mean
    assert both == pytest.approx(np.mean(base) - np.mean(anb))
    assert lost.excess.mean == pytest.approx(
        lost.specificity.mean - lost.co_adaptation.mean
    )
    assert lost.dominant == "specificity"
    assert decouple(base, anb, anb).dominant == "co_adaptation"
    assert decouple(base, base, base).dominant is None
    assert decouple(base[:1], bnb[:1], anb[:1]).dominant is None


def test_a_loss_that_may_be_nothing_is_not_dominant():
    # Specificity is far above co-adaptation, which is a gain, and not above 0.
    base, bnb = [60.0, 62.0, 61.0], [65.0, 67.1, 66.1]
    lost = decouple(base, bnb, [65.2, 66.9, 66.0])
    assert lost.excess.mean > 3 * lost.excess.ci95
    assert lost.specificity.ci95 > abs(lost.specificity.mean)
    assert lost.dominant is None
    # The larger of two gains is no loss either.
    gains = decouple(base, bnb, [66.0, 68.2, 67.1])
    assert gains.specificity.mean + gains.specificity.ci95 < 0
    assert gains.dominant is None
