"""examples/federated-statistics equals the pooled computation of pandas, statsmodels, lifelines and scikit-learn.

The hospitals are those of the data where it has some (``inst`` of the lung cancer data, some of which have two rows),
else of very different sizes, so that some lack levels of a category or have a column that is constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from lessons import ROOT
from lifelines import CoxPHFitter, KaplanMeierFitter, datasets
from scipy.stats import chi2_contingency
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.decomposition import PCA

from fedpkg.analytics import names
from fedpkg.session.algorithm_run import AlgorithmOptions, config_of_algorithm, result_of
from fedpkg.session.session import prepare
from fedpkg.stores.home import Home

MODULE = "federated_statistics"


@pytest.fixture(autouse=True, scope="module")
def example_on_the_path():
    names.serve()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "examples" / "federated-statistics"))
        yield


def run(method: str, hospitals: Sequence[pd.DataFrame], **arguments: Any) -> Any:
    from vantage6.algorithm.tools.mock_client import MockAlgorithmClient

    client = MockAlgorithmClient([[{"database": one, "db_type": "csv"}] for one in hospitals], MODULE)
    [first, *_] = [one["id"] for one in client.organization.list()]
    task = client.task.create(input_={"method": method, "kwargs": arguments}, organizations=[first])
    [result] = client.wait_for_results(task["id"])
    return result


def in_parts(frame: pd.DataFrame, *sizes: int) -> list[pd.DataFrame]:
    """Hospitals with these numbers of rows, in the order of the table, and one with the others."""
    ends = np.cumsum([0, *sizes, len(frame) - sum(sizes)])
    return [frame.iloc[a:b].reset_index(drop=True) for a, b in pairwise(ends)]


def lung() -> pd.DataFrame:
    return datasets.load_lung().rename(columns=lambda name: name.replace(".", "_"))


def lung_by_hospital() -> list[pd.DataFrame]:
    hospitals = [one for _, one in lung().groupby("inst", dropna=False)]
    assert min(map(len, hospitals)) <= 2 and len(hospitals) > 15
    return hospitals


def gbsg2() -> pd.DataFrame:
    """Breast cancer patients, with texts, sorted by a grade, so that the small hospitals have one grade each."""
    return datasets.load_gbsg2().sort_values("tgrade", kind="stable").reset_index(drop=True)


def breast_cancer() -> pd.DataFrame:
    frame = load_breast_cancer(as_frame=True).frame
    return frame.rename(columns=lambda name: name.replace(" ", "_"))


def close(got: Any, wanted: Any, rel: float = 1e-8) -> None:
    np.testing.assert_allclose(np.asarray(got, dtype=float), np.asarray(wanted, dtype=float), rtol=rel, atol=1e-300)


# Means and variances


def test_mean_and_variance_equal_those_of_pandas():
    found = run("mean_and_variance", lung_by_hospital(), columns=["age", "meal_cal", "wt_loss"])
    for name, one in found.items():
        column = lung()[name]
        assert one["count"] == column.count() and one["missing"] == column.isna().sum()
        close(
            [one["mean"], one["variance"], one["standard_deviation"]],
            [column.mean(), column.var(), column.std()],
            1e-13,
        )
    assert found["meal_cal"]["missing"] == 47


def test_variance_survives_an_offset_that_is_far_greater():
    frame = lung()[["age"]] + 1e9
    one = run("mean_and_variance", in_parts(frame, 1, 100), columns=["age"])["age"]
    close(one["variance"], lung()["age"].var())


def test_a_single_value_has_a_mean_and_no_variance():
    empty, single = pd.DataFrame({"x": [None, None]}), pd.DataFrame({"x": [3.5]})
    found = run("mean_and_variance", [empty, single], columns=["x"])
    assert found["x"] == {"count": 1, "missing": 2, "mean": 3.5, "variance": None, "standard_deviation": None}


def test_a_column_that_is_constant_has_no_variance_left_by_rounding():
    found = run("mean_and_variance", in_parts(pd.DataFrame({"x": [0.1] * 1000}), 1, 333), columns=["x"])
    assert found["x"]["variance"] < 1e-30


# Contingency tables


def test_contingency_table_equals_that_of_pandas_and_scipy():
    found = run("contingency_table", lung_by_hospital(), row="ph_ecog", column="sex")
    frame = lung()[["ph_ecog", "sex"]].dropna().astype(int)
    table = pd.crosstab(frame["ph_ecog"], frame["sex"])
    assert found["rows"] == list(map(str, table.index)) and found["columns"] == list(map(str, table.columns))
    assert found["counts"] == table.to_numpy().tolist() and found["missing"] == 1
    expected = chi2_contingency(table, correction=False)
    close(found["chi_squared"], expected.statistic, 1e-12)
    assert found["degrees_of_freedom"] == expected.dof


def test_whole_numbers_are_the_same_level_where_pandas_reads_floats():
    hospitals = [pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}), pd.DataFrame({"a": [1.0, None], "b": ["x", "x"]})]
    found = run("contingency_table", hospitals, row="a", column="b")
    assert (found["rows"], found["counts"], found["missing"]) == (["1", "2"], [[2, 0], [0, 1]], 1)


# Histograms and quantiles


def test_histogram_equals_that_of_numpy():
    found = run("histogram", lung_by_hospital(), column="meal_cal", bins=7)
    values = lung()["meal_cal"].dropna()
    assert found["counts"] == np.histogram(values, bins=found["edges"])[0].tolist()
    assert sum(found["counts"]) == len(values) == 228 - found["missing"]
    assert found["edges"][0] <= values.min() and found["edges"][-1] >= values.max()


def test_histogram_counts_what_is_outside():
    found = run("histogram", in_parts(lung(), 1, 50), column="age", bins=2, lower=50, upper=70)
    age = lung()["age"]
    assert found["below"] == (age < 50).sum() and found["above"] == (age > 70).sum()
    assert found["counts"] == [((age >= 50) & (age < 60)).sum(), ((age >= 60) & (age <= 70)).sum()]


@pytest.mark.parametrize("values", [[-123.4, -0.05], [5.0, 5.0], [0.0, 0.0], [-1e-300, 1e300], [0.1, 9.999]])
def test_a_range_is_rounded_outwards(values):
    found = run("histogram", in_parts(pd.DataFrame({"x": values}), 1), column="x", bins=3)
    assert sum(found["counts"]) == 2 and found["below"] == found["above"] == 0


@pytest.mark.parametrize("column", ["age", "meal_cal", "wt_loss"])
def test_quantiles_equal_those_of_numpy_to_the_last_bit(column):
    probabilities = [0, 0.01, 0.25, 1 / 3, 0.5, 0.9, 1]
    found = run("quantiles", lung_by_hospital(), column=column, probabilities=probabilities)
    expected = np.quantile(lung()[column].dropna(), probabilities)
    assert [found["quantiles"][str(one)] for one in probabilities] == expected.tolist()
    assert found["rounds"] <= 9


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=5), min_size=1, max_size=4))
def test_quantiles_of_any_numbers_are_exact(hospitals):
    values = [one for hospital in hospitals for one in hospital]
    if not values:
        return
    ranks = np.arange(len(values)) / max(1, len(values) - 1)
    frames = [pd.DataFrame({"x": pd.Series(one, dtype=float)}) for one in hospitals]
    found = run("quantiles", frames, column="x", probabilities=[0.0, 1.0, float(ranks[len(ranks) // 2])])["quantiles"]
    assert found["0.0"] == min(values) and found["1.0"] == max(values)


def test_quantiles_are_as_near_as_the_tolerance_and_take_fewer_rounds():
    column, hospitals = "mean_radius", in_parts(breast_cancer(), 3, 200)
    exact = run("quantiles", hospitals, column=column, probabilities=[0.5])
    near = run("quantiles", hospitals, column=column, probabilities=[0.5], tolerance=0.1)
    assert 0 < abs(near["quantiles"]["0.5"] - exact["quantiles"]["0.5"]) <= 0.05
    assert near["rounds"] < exact["rounds"] <= 9


# Regressions


def test_linear_regression_equals_that_of_statsmodels():
    frame = load_diabetes(as_frame=True, scaled=False).frame
    predictors = list(frame.columns[:-1])
    found = run("glm", in_parts(frame, 1, 9, 100), outcome="target", predictors=predictors)
    expected = sm.OLS(frame["target"], sm.add_constant(frame[predictors])).fit()
    close(column_of(found, "coefficient"), expected.params)
    close(column_of(found, "standard_error"), expected.bse)
    close(found["covariance"], expected.cov_params())
    close(
        [found["deviance"], found["null_deviance"], found["dispersion"]],
        [expected.ssr, expected.centered_tss, expected.scale],
    )


def test_logistic_regression_with_missing_values_and_tiny_hospitals_equals_that_of_statsmodels():
    predictors = ["age", "ph_karno", "wt_loss"]
    found = run("glm", lung_by_hospital(), outcome="status", predictors=predictors, family="binomial")
    frame = lung().dropna(subset=[*predictors, "status"])
    expected = sm.GLM(frame["status"], sm.add_constant(frame[predictors]), sm.families.Binomial()).fit(tol=1e-14)
    assert found["rows"] == len(frame) and found["dropped"] == 228 - len(frame)
    for key, wanted in [("coefficient", expected.params), ("standard_error", expected.bse), ("z", expected.tvalues)]:
        close(column_of(found, key), wanted)
    close(column_of(found, "p"), expected.pvalues)
    close([found["deviance"], found["null_deviance"]], [expected.deviance, expected.null_deviance])


def test_poisson_regression_equals_that_of_statsmodels():
    frame = sm.datasets.randhie.load_pandas().data
    predictors = ["lncoins", "idp", "lpi", "physlm", "disea", "hlthg"]
    found = run("glm", in_parts(frame, 2, 5000, 12000), outcome="mdvis", predictors=predictors, family="poisson")
    expected = sm.GLM(frame["mdvis"], sm.add_constant(frame[predictors]), sm.families.Poisson()).fit(tol=1e-14)
    close(column_of(found, "coefficient"), expected.params)
    close(column_of(found, "standard_error"), expected.bse)
    close([found["deviance"], found["null_deviance"]], [expected.deviance, expected.null_deviance])


def test_a_category_that_hospitals_lack_is_that_of_all_rows():
    frame = gbsg2()
    hospitals = in_parts(frame, 40, 60, 3)
    assert [one["tgrade"].nunique() for one in hospitals] == [1, 2, 1, 2]
    found = run("glm", hospitals, outcome="tsize", predictors=["tgrade", "menostat", "age"])
    x = pd.get_dummies(frame[["tgrade", "menostat", "age"]], drop_first=True).astype(float)
    x = x[["tgrade_II", "tgrade_III", "menostat_Pre", "age"]]
    expected = sm.OLS(frame["tsize"], sm.add_constant(x)).fit()
    assert list(found["coefficients"]) == ["intercept", "tgrade[II]", "tgrade[III]", "menostat[Pre]", "age"]
    close(column_of(found, "coefficient"), expected.params)


def test_a_column_of_numbers_can_be_a_category():
    found = run("glm", lung_by_hospital(), outcome="time", predictors=["ph_ecog"], categorical=["ph_ecog"])
    frame = lung().dropna(subset=["ph_ecog"])
    expected = sm.OLS.from_formula("time ~ C(ph_ecog)", frame).fit()
    assert list(found["coefficients"]) == ["intercept", "ph_ecog[1]", "ph_ecog[2]", "ph_ecog[3]"]
    close(column_of(found, "coefficient"), expected.params)


def test_poorly_scaled_columns_lose_no_digits():
    frame = lung()[["time", "age"]].assign(small=lung()["sex"] * 1e-9, great=lung()["age"] ** 2 + 1e9)
    found = run("glm", in_parts(frame, 5, 100), outcome="time", predictors=["age", "small", "great"])
    same = lung()[["age", "sex"]].assign(square=lung()["age"] ** 2)
    expected = sm.OLS(frame["time"], sm.add_constant(same)).fit().params
    close(column_of(found, "coefficient")[1:], [expected["age"], expected["sex"] * 1e9, expected["square"]])


def test_a_category_that_other_hospitals_have_as_numbers_or_not_at_all():
    pooled = pd.DataFrame({"y": [1.0, 2, 4, 3, 5, 9, 2, 2], "grade": list("1x2x1221"), "flag": [True, False] * 4})
    second = pooled[4:].astype({"grade": int})
    empty = pooled[:1].assign(grade=None)
    found = run("glm", [pooled[:4], second, empty], outcome="y", predictors=["grade", "flag"])
    expected = sm.OLS.from_formula("y ~ C(grade) + flag", pooled).fit()
    assert list(found["coefficients"]) == ["intercept", "grade[2]", "grade[x]", "flag"]
    close(column_of(found, "coefficient"), expected.params.to_numpy())


def test_a_fit_without_any_error_has_no_z():
    frame = pd.DataFrame({"x": range(8), "y": [2 * one + 1 for one in range(8)]})
    found = run("glm", in_parts(frame, 3), outcome="y", predictors=["x"])["coefficients"]
    assert (found["x"]["coefficient"], found["intercept"]["coefficient"]) == pytest.approx((2, 1), abs=1e-12)
    assert found["x"]["standard_error"] < 1e-12


def test_a_hazard_ratio_that_no_number_can_hold_is_left_out():
    frame = datasets.load_rossi().assign(tiny=lambda one: one["age"] * -1e-9)
    found = run("cox", in_parts(frame, 100), duration="week", event="arrest", predictors=["tiny"])
    assert found["coefficients"]["tiny"]["coefficient"] > 1e7 and found["coefficients"]["tiny"]["hazard_ratio"] is None


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_cox_regression_equals_that_of_statsmodels(ties):
    frame = datasets.load_rossi()
    predictors = ["fin", "age", "race", "wexp", "mar", "paro", "prio"]
    found = run("cox", in_parts(frame, 1, 30, 200), duration="week", event="arrest", predictors=predictors, ties=ties)
    model = sm.PHReg(frame["week"], frame[predictors], status=frame["arrest"], ties=ties)
    expected = model.fit(method="newton", tol=1e-14, disp=False)
    close(column_of(found, "coefficient"), expected.params)
    close(column_of(found, "standard_error"), expected.bse)
    close([found["log_likelihood"], found["null_log_likelihood"]], [expected.llf, model.loglike(np.zeros(7))], 1e-11)
    assert (found["rows"], found["events"]) == (432, 114)


def test_cox_regression_with_categories_and_missing_values_equals_that_of_lifelines():
    columns = ["time", "status", "age", "sex", "ph_karno", "wt_loss"]
    found = run("cox", lung_by_hospital(), duration="time", event="status", predictors=columns[2:])
    fitter = CoxPHFitter().fit(lung()[columns].dropna(), "time", "status", fit_options={"precision": 1e-14})
    close(column_of(found, "coefficient"), fitter.params_)
    close(column_of(found, "hazard_ratio"), fitter.hazard_ratios_)
    close(column_of(found, "standard_error"), fitter.standard_errors_)
    assert found["dropped"] == lung()[columns].isna().any(axis=1).sum()

    found = run(
        "cox", in_parts(gbsg2(), 40, 60, 3), duration="time", event="cens", predictors=["horTh", "tgrade", "pnodes"]
    )
    frame = pd.get_dummies(gbsg2()[["horTh", "tgrade", "pnodes", "time", "cens"]], drop_first=True).astype(float)
    fitter = CoxPHFitter().fit(frame, "time", "cens", fit_options={"precision": 1e-14})
    names = {"horTh[yes]": "horTh_yes", "tgrade[II]": "tgrade_II", "tgrade[III]": "tgrade_III", "pnodes": "pnodes"}
    assert list(found["coefficients"]) == list(names)
    close(column_of(found, "coefficient"), fitter.params_[list(names.values())])


def column_of(found: dict[str, Any], key: str) -> list[float]:
    return [one[key] for one in found["coefficients"].values()]


# Survival


@pytest.mark.parametrize("data", ["lung", "waltons"])
def test_kaplan_meier_equals_that_of_lifelines(data):
    if data == "lung":
        frame, hospitals, names = lung(), lung_by_hospital(), ("time", "status")
    else:  # in which all have had the event at the end
        frame, names = datasets.load_waltons(), ("T", "E")
        hospitals = in_parts(frame, 1, 50)
    found = run("kaplan_meier", hospitals, duration=names[0], event=names[1])
    fitter = KaplanMeierFitter().fit(frame[names[0]], frame[names[1]])
    curve = pd.DataFrame(found["curve"]).set_index("time")
    close(curve["survival"], fitter.survival_function_.loc[curve.index, "KM_estimate"], 1e-12)
    interval = fitter.confidence_interval_.loc[curve.index]
    close(curve[["lower", "upper"]], interval, 1e-10)
    assert curve["at_risk"].tolist() == fitter.event_table.loc[curve.index, "at_risk"].tolist()
    assert found["median"] == fitter.median_survival_time_
    variance = sm.SurvfuncRight(frame[names[0]], frame[names[1]]).surv_prob_se ** 2
    is_known = curve["variance"].notna().to_numpy()
    close(curve["variance"][is_known], variance[is_known], 1e-12)
    assert found["events"] == frame[names[1]].sum() and found["rows"] == len(frame)


def test_the_median_is_the_time_at_which_half_survive_however_that_is_rounded():
    for n in range(2, 100, 2):
        frame = pd.DataFrame({"time": range(1, n + 1), "event": 1})
        assert run("kaplan_meier", in_parts(frame, 1), duration="time", event="event")["median"] == n / 2


# Principal components


@pytest.mark.parametrize("standardise", [False, True])
def test_principal_components_equal_those_of_scikit_learn(standardise):
    frame = breast_cancer().drop(columns="target")
    columns = list(frame.columns[:10])
    found = run("pca", in_parts(frame, 1, 9, 300), columns=columns, components=4, standardise=standardise)
    rows = frame[columns].to_numpy()
    rows = (rows - rows.mean(axis=0)) / rows.std(axis=0, ddof=1) if standardise else rows
    expected = PCA(4, svd_solver="full").fit(rows)
    close(found["explained_variance"], expected.explained_variance_)
    close(found["explained_variance_ratio"], expected.explained_variance_ratio_)
    close(np.abs(np.sum(np.array(found["components"]) * expected.components_, axis=1)), np.ones(4))
    np.testing.assert_allclose(np.abs(found["components"]), np.abs(expected.components_), atol=1e-8)


# Bad input


TABLE = {
    "x": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0],
    "same": [1.0] * 8,
    "double": [2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0],
    "text": list("abababab"),
    "id": list("abcdefgh"),
    "none": [None] * 8,
    "inf": [1.0, np.inf, *range(6)],
    "y": [0, 1, 0, 1, 1, 0, 1, 1],
    "apart": [0, 0, 0, 0, 1, 1, 1, 1],
    "partly": [0, 0, 0, 1, 0, 0, 0, 0],
    "third": [-1, 0, 0, 2, 0, 0, 1, 1],
    "time": [1, 2, 3, 4, 5, 6, 7, 8],
}
BAD = [
    ("mean_and_variance", {"columns": ["size"]}, "there is no column 'size'; the columns are x, same"),
    ("mean_and_variance", {"columns": "x"}, "columns is a list of names of columns, not 'x'"),
    ("mean_and_variance", {"columns": []}, "columns is a list of names"),
    ("mean_and_variance", {"columns": ["x", "x"]}, "'x' is there twice"),
    ("mean_and_variance", {"columns": ["text"]}, "column 'text' is not numeric"),
    ("mean_and_variance", {"columns": ["none"]}, "column 'none' has no value at any organization"),
    ("mean_and_variance", {"columns": ["inf"]}, "column 'inf' has 1 infinite values"),
    ("contingency_table", {"row": "x", "column": "none"}, "no row has a value in both 'x' and 'none'"),
    ("histogram", {"column": "none"}, "column 'none' has no value"),
    ("histogram", {"column": "x", "bins": 0}, "bins is at least 1"),
    ("histogram", {"column": "x", "lower": 2, "upper": 1}, "upper is greater than lower"),
    ("quantiles", {"column": "none", "probabilities": [0.5]}, "column 'none' has no value"),
    ("quantiles", {"column": "x", "probabilities": [1.5]}, "probabilities are between 0 and 1"),
    ("glm", {"outcome": "x", "predictors": ["same"]}, "'same' has the same value in all rows"),
    ("glm", {"outcome": "same", "predictors": ["x"]}, "the outcome 'same' has the same value"),
    ("glm", {"outcome": "y", "predictors": ["x", "double"]}, "'x' and 'double' depend on each other linearly"),
    ("glm", {"outcome": "y", "predictors": ["x", "none"]}, "no row has a value in each of x, none, y"),
    ("glm", {"outcome": "x", "predictors": ["y"], "family": "probit"}, "family is one of gaussian, binomial, poisson"),
    ("glm", {"outcome": "x", "predictors": ["y"], "family": "binomial"}, "outcome of a logistic regression is 0 or 1"),
    ("glm", {"outcome": "third", "predictors": ["x"], "family": "binomial"}, "outcome of a logistic regression is 0"),
    ("glm", {"outcome": "third", "predictors": ["x"], "family": "poisson"}, "column 'third': a count is not negative"),
    (
        "glm",
        {"outcome": "x", "predictors": ["y"], "categorical": ["z"]},
        "categorical: 'z' is not one of the predictors",
    ),
    (
        "glm",
        {"outcome": "apart", "predictors": ["x"], "family": "binomial"},
        "coefficients of 'x' grow",
    ),
    (
        "glm",
        {"outcome": "y", "predictors": ["partly"], "family": "binomial"},
        "coefficients of 'partly' grow",
    ),
    ("cox", {"duration": "time", "event": "y", "predictors": ["x"]}, "coefficients of 'x' grow"),
    ("cox", {"duration": "time", "event": "x", "predictors": ["y"]}, "column 'x': an event is 1 or"),
    ("cox", {"duration": "time", "event": "y", "predictors": ["x"], "ties": "exact"}, "ties is efron or breslow"),
    ("kaplan_meier", {"duration": "none", "event": "y"}, "no organization has an event"),
    ("kaplan_meier", {"duration": "time", "event": "y", "confidence": 95}, "confidence is between 0 and 1"),
    ("pca", {"columns": ["x", "text"]}, "column 'text' is not numeric"),
    ("pca", {"columns": ["x", "y"], "components": 3}, "components is between 1 and the number of columns"),
]


@pytest.mark.parametrize(("method", "arguments", "message"), BAD, ids=[f"{one[0]}-{i}" for i, one in enumerate(BAD)])
def test_bad_input_is_refused_with_the_column(method, arguments, message):
    with pytest.raises(Exception, match=message):
        run(method, in_parts(pd.DataFrame(TABLE), 3, 1), **arguments)


def test_a_column_that_identifies_rows_is_no_category():
    frame = pd.DataFrame({"id": [f"patient {i}" for i in range(60)], "x": range(60), "y": range(60)})
    with pytest.raises(Exception, match="column 'id' has more than 50 different values"):
        run("glm", [frame], outcome="y", predictors=["id"])
    with pytest.raises(Exception, match="column 'id' has more than 50 different values"):
        run("contingency_table", [frame], row="id", column="id")


def test_counts_that_an_organization_hides_are_not_taken_for_zero(example_on_the_path):
    from federated_statistics.tables import chi_squared, total

    assert total([3, 0, 4]) == 7 and total([3, None]) is None
    assert chi_squared([[5, None], [6, 7]]) is None


def test_functions_with_counts_say_where(example_on_the_path):
    import federated_statistics

    from fedpkg.analytics.policy import policy_of

    policy, frame = policy_of({"minimum_count": 3}), pd.DataFrame({"x": [1, 1, 1, 2, 2], "y": list("aabbb")})
    for name, arguments in [("partial_table", {"row": "x", "column": "y"}), ("partial_histogram", HISTOGRAM)]:
        function = getattr(federated_statistics, name)
        result = function(mock_data=[frame], **arguments)
        released = policy.released(result, policy.counts_of(name, function.__doc__))
        assert released["counts"] in ({"1": {"a": None, "b": None}, "2": {"b": None}}, [3, None])


HISTOGRAM = {"column": "x", "edges": [1, 1.5, 2]}


# With the real runner


@pytest.mark.slow
def test_a_session_has_the_result_of_the_mock(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hospitals = [one for one in lung_by_hospital() if len(one) > 15] + [lung().iloc[:1]]
    for number, one in enumerate(hospitals):
        one.to_csv(f"{number}.csv", index=False)
    asked = {"duration": "time", "event": "status", "predictors": ["age", "ph_ecog"], "categorical": ["ph_ecog"]}
    options = AlgorithmOptions(
        "cox",
        arguments=["duration=time", "event=status", "predictors=age,ph_ecog", "categorical=ph_ecog"],
        databases={"default": "*.csv"},
    )
    home = Home.open(tmp_path / "home")
    row = prepare(config_of_algorithm(ROOT / "examples" / "federated-statistics", options), home).run()
    found, expected = result_of(home, row), run("cox", hospitals, **asked)
    assert found["rows"] == expected["rows"] and found["coefficients"].keys() == expected["coefficients"].keys()
    for key in ("coefficient", "standard_error", "z", "p"):
        close(column_of(found, key), column_of(expected, key), 1e-9)
