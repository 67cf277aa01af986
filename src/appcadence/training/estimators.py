"""The models as scikit-learn estimators: for pipelines, cross-validation and parameter searches."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin, OneToOneFeatureMixin, OutlierMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from appcadence._types import Codes, Matrix, Vector
from appcadence.errors import SchemaError
from appcadence.features.catalog import NAMES
from appcadence.models.baseline import AppBaseline
from appcadence.models.detector import aligned, forest_input
from appcadence.models.experts import Experts
from appcadence.models.fusion import fuse
from appcadence.training.fit import Sample, labelled_rows
from appcadence.training.supervised import TREES, Hyperparameters, Start, anomaly_score, correct, fit_forest

_KEYS = ("device_id", "app_id", "dest")


class _TakesNaN(BaseEstimator):  # type: ignore[misc]
    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


class _OnFeatureTables(_TakesNaN):
    """Takes a feature table, as `extract` or `FlowFeatures` returns it, or a plain matrix.

    Columns of a table are found by name, keys may be in the index, and other columns are ignored. A plain
    matrix (n, k) holds the first k features of the catalogue, in its order, of one channel; the others are
    unknown.
    """

    def _validated(self, X: Any, **how: Any) -> tuple[pd.DataFrame, Any]:
        """X as a feature table, and y if it is given."""
        named = isinstance(X, pd.DataFrame) and not set(NAMES).isdisjoint(X.columns)
        if named:
            table = X.reset_index() if "dest" in X.index.names else X
            missing = [name for name in (*_KEYS, *NAMES) if name not in table.columns]
            if missing:
                raise SchemaError(f"the feature table lacks {missing[0]!r}; give it as extract returns it")
            X = table[list(NAMES)]
        checked = validate_data(self, X, ensure_all_finite="allow-nan", **how)
        numbers, y = checked if isinstance(checked, tuple) else (checked, None)
        if not named:
            if numbers.shape[1] > len(NAMES):
                raise ValueError(f"X has {numbers.shape[1]} columns, the catalogue {len(NAMES)} features")
            table = pd.DataFrame(numbers, columns=list(NAMES[: numbers.shape[1]])).reindex(
                columns=list(NAMES)
            )
            table = table.assign(**dict.fromkeys(_KEYS, ""))
        return table if "category" in table.columns else table.assign(category=None), y


class BaselineScaler(OneToOneFeatureMixin, TransformerMixin, _OnFeatureTables):  # type: ignore[misc]
    """Each feature as its distance from what is usual for the app: `AppBaseline` as a transformer.

    X is a feature table, or a plain matrix (n, k): the first k features of the catalogue, in its order, of
    one channel. The output is a matrix (n, n_features) in spreads, clipped to ±8; NaN where X is unknown, and
    for features that are not compared with the baseline.

    Attributes:
        baseline_: the `AppBaseline` after fitting.

    Raises:
        SchemaError: a feature table lacks a key or a feature.
    """

    def fit(self, X: Any, y: Any = None) -> BaselineScaler:
        """Learn what is usual from the windows of a benign period; `y` is ignored."""
        self.baseline_ = AppBaseline.fit(self._validated(X)[0])
        return self

    def transform(self, X: Any) -> Matrix:
        """(n, n_features) distances from the baseline."""
        check_is_fitted(self)
        frame = self._validated(X, reset=False)[0]
        return self.baseline_.distances(frame)[:, : self.n_features_in_]


class FlatIsolationForest(OutlierMixin, _TakesNaN):  # type: ignore[misc]
    """The detector's isolation forest: scikit-learn's own, flattened to plain arrays, with the same scores.

    X is a matrix (n, n_features) of float32 range; NaN is taken as 0, "as expected" where X holds distances
    from a baseline. Signs are scikit-learn's: the lower, the more anomalous. Liu, Ting and Zhou, 2008.

    Parameters:
        n_estimators: number of trees.
        random_state: seed.

    Attributes:
        trees_: the flattened ensemble.
        offset_: -0.5, the score of a row of average depth; no share of outliers is assumed.
    """

    def __init__(self, n_estimators: int = TREES, random_state: int = 0) -> None:
        self.n_estimators = n_estimators
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> FlatIsolationForest:
        """Learn from mostly ordinary rows; `y` is ignored."""
        self.trees_ = fit_forest(self._rows(X), self.random_state, self.n_estimators)
        self.offset_ = -0.5
        return self

    def score_samples(self, X: Any) -> Vector:
        """(n,) in [-1, 0), the lower the more anomalous."""
        check_is_fitted(self)
        return -anomaly_score(self.trees_.raw(self._rows(X, reset=False)))

    def decision_function(self, X: Any) -> Vector:
        """(n,) `score_samples` less `offset_`: negative for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> Codes:
        """(n,) -1 for outliers, 1 for the rest."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def _rows(self, X: Any, **how: Any) -> Matrix:
        return forest_input(validate_data(self, X, dtype=np.float32, ensure_all_finite="allow-nan", **how))


class DetectorClassifier(ClassifierMixin, _OnFeatureTables):  # type: ignore[misc]
    """The detector's models on labelled windows: baseline, experts, and LightGBM that corrects their sum.

    X is a feature table, or a plain matrix (n, k): the first k features of the catalogue, in its order, of
    one channel. y holds two classes; the implants' is the last in sorted order, such as 1 of 0 and 1. Pass
    only windows that can be judged (`appcadence.models.eligibility.eligible`), as training does. All
    malicious windows of an app on a device together have the weight of one. To cross-validate, keep the
    windows of a device in one fold (`GroupKFold`). The higher the score, the more like an implant. Scores are
    not calibrated, which takes held-out devices and days: `appcadence.training.train` does that, and injects
    implants.

    Parameters:
        baseline: the `AppBaseline` of an earlier period; None fits it on the benign windows of X, which then
            look more usual than later windows will.
        trees, leaves, learning_rate, min_data_in_leaf, feature_fraction, lambda_l2: LightGBM's
            `Hyperparameters`.
        random_state: seed.

    Attributes:
        classes_: the two classes, the implants' last.
        baseline_, experts_, weight_, classifier_: the fitted models, and the weight of the experts' sum.

    Raises:
        SchemaError: a feature table lacks a key or a feature.
        ValueError: y does not hold two classes.
    """

    def __init__(
        self,
        baseline: AppBaseline | None = None,
        trees: int = Hyperparameters.trees,
        leaves: int = Hyperparameters.leaves,
        learning_rate: float = Hyperparameters.learning_rate,
        min_data_in_leaf: int = Hyperparameters.min_data_in_leaf,
        feature_fraction: float = Hyperparameters.feature_fraction,
        lambda_l2: float = Hyperparameters.lambda_l2,
        random_state: int = 0,
    ) -> None:
        self.baseline = baseline
        self.trees = trees
        self.leaves = leaves
        self.learning_rate = learning_rate
        self.min_data_in_leaf = min_data_in_leaf
        self.feature_fraction = feature_fraction
        self.lambda_l2 = lambda_l2
        self.random_state = random_state

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        # Trees are monotone in suspicious directions: classes that differ the other way are not learned.
        tags.classifier_tags.poor_score = True
        return tags

    def fit(self, X: Any, y: Any) -> DetectorClassifier:
        """Learn from windows (n rows) and their classes (n,)."""
        frame, y = self._validated(X, y=y)
        check_classification_targets(y)
        self.classes_, code = np.unique(y, return_inverse=True)
        if len(self.classes_) != 2:
            raise ValueError(
                f"Only binary classification is supported: y holds {len(self.classes_)} class(es)"
            )
        benign = code == 0
        self.baseline_ = AppBaseline.fit(frame[benign]) if self.baseline is None else self.baseline
        app, dest = frame["app_id"].astype(object), frame["dest"].astype(object)
        device = frame["device_id"].astype(object)
        carrier = frame.groupby([device, app.where(app.notna(), dest)], dropna=False).ngroup().to_numpy()
        verdicts = {} if "verdict" in frame.columns else {"verdict": None}
        rows = Sample.of(frame.assign(**verdicts), np.where(benign, -1, carrier), self.baseline_, 0)
        usual = rows.take(benign)
        self.experts_ = Experts.fit(usual.values, usual.distances)
        start = Start.of(self.experts_, None, *labelled_rows(rows))
        settings = Hyperparameters(**{f.name: getattr(self, f.name) for f in fields(Hyperparameters)})
        self.classifier_ = correct(start, *labelled_rows(rows), self.random_state, settings).classifier(1.0)
        self.weight_ = start.weight
        return self

    def decision_function(self, X: Any) -> Vector:
        """(n,) raw scores, the higher the more anomalous: log-odds of being an implant."""
        check_is_fitted(self)
        frame = self._validated(X, reset=False)[0]
        weights = np.array([1.0, self.weight_])
        return fuse(
            aligned(frame), self.baseline_.distances(frame), self.classifier_, self.experts_, weights
        )[1]

    def predict_proba(self, X: Any) -> Matrix:
        """(n, 2) shares of `classes_`, each row of sum 1: the logistic of `decision_function`.

        They are probabilities under the class balance of the training windows, in which implants are far more
        common than in practice. For benign rates use the p-values of a trained `Detector`.
        """
        odds = self.decision_function(X)
        return np.asarray(np.exp(-np.logaddexp(0.0, np.column_stack([odds, -odds]))))

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """(n,) the implants' class where `decision_function` is positive, else the other; no alert budget."""
        anomalous = self.decision_function(X) > 0
        return np.asarray(self.classes_[anomalous.astype(np.int64)])
