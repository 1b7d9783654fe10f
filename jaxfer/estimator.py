"""A classifier of pictures or embeddings with the interface of scikit-learn."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxfer import classifier_files, models, support_set
from jaxfer import estimator_inputs as inputs
from jaxfer.data.pictures import read_pictures
from jaxfer.heads.leave_one_out import Kind, fit_temperature
from jaxfer.memo import memoised
from jaxfer.models import Model
from jaxfer.pretrained import load_pretrained
from jaxfer.support_set import Normalize


class FewShotClassifier:
    """Classify pictures from a few examples per class, or from their embeddings.

    The pictures are embedded by a pretrained model, and a head is computed from the
    embeddings in closed form. Classes and examples can be added and removed at any
    time, with the result of a fit on all examples at once. It follows the conventions
    of scikit-learn, which is not needed.

    Args:
        model: the model that embeds pictures: a `Model`, the name of installed weights
            or the path of a model (see `load_pretrained`). It is not loaded where
            embeddings are given.
        head: 'prototype' (Snell et al. 2017), the nearest class mean; 'imprint' (Qi et
            al. 2018), the class mean of highest cosine; 'matching' (Vinyals et al.
            2016), attention over all examples; 'nearest', the nearest example;
            'linear', ridge regression; or 'lda', linear discriminant analysis with a
            shrunk covariance.
        normalize: what is done to embeddings first: 'sqrt' is `sign(z) sqrt|z|` scaled
            to length 1, which suits features after a ReLU; 'unit' scales to length 1;
            'none' changes nothing.
        temperature: the divisor of the logits, above 0; or 'leave_one_out', the one
            that fits the examples best when each is left out in turn.
        unknown: the share of pictures of known classes, in (0, 1), that may be called
            unknown; `predict` then returns 'unknown' (-1 for integer labels) for
            pictures whose similarity to all classes is below `threshold_`. None for
            never.
        prototypes: k-means prototypes per class of the heads 'prototype' and 'imprint'.
        penalty: the penalty of 'linear', above 0.
        shrinkage: the shrinkage of 'lda' in [0, 1]; None for that of the data.

    Attributes:
        classes_: the sorted labels.
        class_count_: the number of examples of each class.
        temperature_: the temperature in use.
        threshold_: the lowest similarity of known pictures; None without `unknown`.
        n_features_in_: the dimension of the embeddings.
        about_: what you want to keep with it, as plain values; it is saved.

    Raises:
        ValueError: when it is fitted: options or examples that do not fit.

    Example:
        >>> z = np.array([[0.0, 0.0], [0.0, 1.0], [4.0, 0.0], [4.0, 1.0]])
        >>> classifier = FewShotClassifier(normalize="none")
        >>> _ = classifier.fit(z, ["kite", "kite", "wren", "wren"])
        >>> classifier.predict([[3.0, 0.5]]).tolist()
        ['wren']
    """

    def __init__(
        self,
        model: Any = "efficientnet_lite0",
        head: Kind = "prototype",
        *,
        normalize: Normalize = "sqrt",
        temperature: float | Literal["leave_one_out"] = "leave_one_out",
        unknown: float | None = None,
        prototypes: int = 1,
        penalty: float = 1.0,
        shrinkage: float | None = None,
    ) -> None:
        """Store the options."""
        self.model = model
        self.head: Kind = head
        self.normalize: Normalize = normalize
        self.temperature = temperature
        self.unknown = unknown
        self.prototypes = prototypes
        self.penalty = penalty
        self.shrinkage = shrinkage

    def fit(self, X: Any, y: Any) -> "FewShotClassifier":
        """Learn classes from examples, and forget earlier ones.

        Args:
            X: pictures as an array `[n, height, width, channels]`, paths, or pictures
                of Pillow; or embeddings `[n, dim]`.
            y: `[n]`, labels: strings, integers or anything that can be sorted.

        Raises:
            ValueError: fewer than two classes, or examples that do not fit.
        """
        z, labels = self._read(X, y)
        if len(np.unique(labels)) < 2:
            raise ValueError(
                "expected examples of at least two classes, got one class, "
                f"{labels[0]!r}: begin with partial_fit to add others later"
            )
        self._support = self._empty(z.shape[1])
        return self._extended(z, labels)

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> "FewShotClassifier":
        """Add examples, of known classes or of new ones; the result equals one `fit`.

        Args:
            X: see `fit`.
            y: see `fit`.
            classes: accepted for scikit-learn; new classes need no announcement.

        Raises:
            ValueError: examples that do not fit the earlier ones.
        """
        del classes
        z, labels = self._read(X, y)
        if not hasattr(self, "_support"):
            self._support = self._empty(z.shape[1])
        return self._extended(z, labels)

    def add_classes(self, examples: Mapping[Any, Any]) -> "FewShotClassifier":
        """Add new classes, each from a few pictures or embeddings.

        Args:
            examples: pictures or embeddings by label.

        Raises:
            ValueError: a class that is known already.
        """
        known = set(getattr(self, "classes_", np.zeros(0)).tolist())
        if again := sorted(map(str, known & set(examples))):
            raise ValueError(
                f"expected new classes, got {again}: add examples with partial_fit"
            )
        if not examples:
            return self
        z = [self.embed(X) for X in examples.values()]
        labels = np.repeat(np.asarray([*examples]), [*map(len, z)])
        return self.partial_fit(inputs.joined(z), labels)

    def remove_class(self, label: Any) -> "FewShotClassifier":
        """Forget a class and its examples.

        Raises:
            ValueError: an unknown class, or the last one.
        """
        self._check_fitted()
        found = np.flatnonzero(self.classes_ == label)
        if not len(found) or len(self.classes_) < 2:
            raise ValueError(
                f"expected one of at least two classes {self.classes_[:5].tolist()}, "
                f"got {label!r}"
            )
        self._support = support_set.without(self._support, int(found[0]))
        self.classes_ = np.delete(self.classes_, found[0])
        return self._refreshed()

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probabilities `[n, classes]` of the classes, in the order of `classes_`.

        Raises:
            ValueError: a classifier that is not fitted, or input that does not fit.
        """
        self._check_fitted()
        z = self._known_dim(X)
        return support_set.probabilities(self._head, z, len(self.classes_))

    def predict(self, X: Any) -> np.ndarray:
        """The most probable label of each picture or embedding, or 'unknown'.

        Raises:
            ValueError: see `predict_proba`.
        """
        self._check_fitted()
        z = self._known_dim(X)
        shares = support_set.probabilities(self._head, z, len(self.classes_))
        labels = self.classes_[shares.argmax(axis=1)]
        if self.threshold_ is None:
            return labels
        strange = inputs.strange_label(self.classes_)
        kind = np.result_type(labels.dtype, strange.dtype)
        labels = labels.astype(object if labels.dtype == object else kind)
        labels[self._support.similarity(z) < self.threshold_] = strange
        return labels

    def similarity(self, X: Any) -> np.ndarray:
        """The cosine of each embedding with the nearest class mean, `[n]`.

        It is low for pictures of unknown classes; `measure_open_set` measures how well
        it tells them apart.

        Raises:
            ValueError: see `predict_proba`.
        """
        self._check_fitted()
        return self._support.similarity(self._known_dim(X))

    def score(self, X: Any, y: Any) -> float:
        """The accuracy, from 0 to 1.

        Raises:
            ValueError: see `predict_proba`.
        """
        labels = inputs.labels_of(y)
        found = self.predict(X)
        inputs.check_lengths(found, labels)
        return float(np.mean(found == labels))

    def save(self, path: str | Path) -> Path:
        """Write the classifier with its model to one file.

        Raises:
            ValueError: a classifier that is not fitted, or a file that cannot be
                written.
        """
        self._check_fitted()
        name = "" if isinstance(self.model, Model) else str(self.model)
        facts = {
            "options": {**self.get_params(), "model": name},
            "classes": self.classes_,
            "temperature": self.temperature_,
            "threshold": self.threshold_,
            "about": dict(self.about_),
        }
        model = self.backbone() if self._uses_model else None
        return classifier_files.save(path, facts, self._support, model)

    @classmethod
    def load(cls, path: str | Path) -> "FewShotClassifier":
        """Read a classifier.

        Raises:
            ValueError: no such file, or one that is damaged or of another version.
        """
        facts, support, model = classifier_files.load(path)
        options = facts["options"]
        classifier = cls(**{**options, "model": model or options["model"]})
        classifier._support = support
        classifier._uses_model = model is not None
        classifier.classes_ = facts["classes"]
        classifier.n_features_in_ = support.dim
        classifier.about_ = facts["about"]
        return classifier._with_head(facts["temperature"], facts["threshold"])

    def embed(self, X: Any) -> np.ndarray:
        """The embeddings `[n, dim]` of pictures; embeddings are returned unchanged.

        Raises:
            ValueError: pictures that cannot be read.
        """
        if inputs.is_embeddings(X):
            return inputs.checked(X)
        model = self.backbone()
        pictures = read_pictures(X, models.model_side(model))
        if not len(pictures):
            raise ValueError("expected at least one picture, got none")
        return models.embed_on_host(model, pictures)

    def examples(self) -> tuple[np.ndarray, np.ndarray]:
        """Normalised embeddings of the examples, and their positions in `classes_`.

        Only the first of each class are returned, at most about 1000 in all.
        """
        self._check_fitted()
        return self._support.sample()

    def nearest_examples(self, X: Any) -> np.ndarray:
        """The number of the example with the highest cosine for each picture, `[n]`.

        Raises:
            ValueError: see `predict_proba`.
        """
        self._check_fitted()
        return self._support.nearest(self._known_dim(X))

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The options by name, as scikit-learn needs them."""
        del deep
        return {name: getattr(self, name) for name in _OPTIONS}

    def set_params(self, **params: Any) -> "FewShotClassifier":
        """Change options; they take effect when it is fitted.

        Raises:
            ValueError: an unknown option.
        """
        if unknown := sorted(set(params) - set(_OPTIONS)):
            raise ValueError(f"expected options of {[*_OPTIONS]}, got {unknown}")
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        """The options that differ from their defaults."""
        return f"FewShotClassifier({inputs.changed_options(self, _OPTIONS)})"

    def __sklearn_tags__(self) -> Any:
        """The tags of a classifier, for scikit-learn."""
        return inputs.sklearn_tags()

    def _read(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """The embeddings and labels of examples, after a check of the options."""
        inputs.check_options(**self.get_params())
        labels = inputs.labels_of(y)
        z = self.embed(X)
        inputs.check_lengths(z, labels)
        return z, labels

    def _extended(self, z: np.ndarray, labels: np.ndarray) -> "FewShotClassifier":
        if z.shape[1] != self._support.dim:
            raise inputs.other_dim(z.shape[1], self._support.dim)
        known = self.classes_ if self._support.count.size else labels[:0]
        every = np.concatenate([known, labels]) if known.size else labels
        classes = np.unique(every)
        if self.unknown is not None:
            inputs.strange_label(classes)
        places = np.searchsorted(classes, known)
        self._support = support_set.extended(
            self._support,
            support_set.transformed(z, self.normalize),
            np.searchsorted(classes, labels),
            places=places,
            num_classes=len(classes),
        )
        self.classes_ = classes
        self.n_features_in_ = z.shape[1]
        return self._refreshed()

    def _refreshed(self) -> "FewShotClassifier":
        """Compute temperature, threshold and head from the support set."""
        support = self._support
        if isinstance(self.temperature, str):
            sample = support.sample()
            temperature = fit_temperature(self.head, *sample, **self._options())
        else:
            temperature = float(self.temperature)
        share = self.unknown
        threshold = None if share is None else support.threshold(share)
        return self._with_head(temperature, threshold)

    def _with_head(
        self, temperature: float, threshold: float | None
    ) -> "FewShotClassifier":
        self.temperature_, self.threshold_ = temperature, threshold
        self._head = support_set.make_head(
            self._support,
            self.head,
            temperature,
            prototypes=self.prototypes,
            **self._options(),
        )
        self.class_count_ = self._support.count
        return self

    def _options(self) -> dict[str, Any]:
        return {"penalty": self.penalty, "shrinkage": self.shrinkage}

    def _empty(self, dim: int) -> support_set.Support:
        return support_set.empty(dim, second=self.head in ("linear", "lda"))

    def _known_dim(self, X: Any) -> np.ndarray:
        z = self.embed(X)
        if z.shape[1] != self.n_features_in_:
            raise inputs.other_dim(z.shape[1], self.n_features_in_)
        return support_set.transformed(z, self.normalize)

    def backbone(self) -> Model:
        """The model that embeds pictures, loaded at its first use, and saved if used.

        Raises:
            ValueError: weights that are not installed.
        """
        self._uses_model = True
        return self.model if isinstance(self.model, Model) else _loaded(str(self.model))

    _uses_model = False
    about_: Mapping[str, Any] = {}

    def _check_fitted(self) -> None:
        if not hasattr(self, "classes_"):
            raise inputs.not_fitted_error()(
                "expected a fitted FewShotClassifier, got one without classes: call "
                "fit first"
            )


_OPTIONS = inspect.signature(FewShotClassifier).parameters


@memoised(4)
def _loaded(name: str) -> Model:
    return load_pretrained(name)
