"""Figures: what is drawn, that it is legible, and that the files are reproducible."""

from __future__ import annotations

import importlib.util
import struct
import sys

import pytest
import torch

from disco_zoo.errors import BadData, CannotWrite, MissingExtra
from disco_zoo.plotting import embedding_map, style
from disco_zoo.plotting.embedding_map import plot_embedding_maps, project
from disco_zoo.plotting.style import plot_curves, require_picture

METRICS = [
    {"step": 10, "epoch": 0, "loss": 2.0, "loss_distill": 1.5, "lr": 0.06, "images_per_s": 40.0},
    {"step": 20, "epoch": 0, "loss": 1.0, "loss_distill": 0.5, "lr": 0.03, "images_per_s": 41.0},
    {"step": 20, "epoch": 0, "knn20_top1": 55.5},
]


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn, so that tests can look at what is on them."""
    from matplotlib.figure import Figure

    made = []
    real = Figure.__init__

    def spy(self, *args, **options):
        real(self, *args, **options)
        made.append(self)

    monkeypatch.setattr(Figure, "__init__", spy)
    return made


@pytest.fixture
def no_tsne(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


def clusters(num_classes: int, each: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(num_classes).repeat_interleave(each)
    centres = torch.randn(num_classes, 16, generator=generator)
    return 4 * centres[labels] + torch.randn(len(labels), 16, generator=generator), labels


def png_size(path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])


def test_curves_show_every_metric_where_it_belongs(tmp_path, figures):
    plot_curves(METRICS, tmp_path / "curves.png", "a run")
    drawn = {
        axis.get_ylabel(): {line.get_label(): line.get_xydata().tolist() for line in axis.lines}
        for axis in figures[0].axes
    }
    assert drawn == {
        "loss": {"loss": [[10, 2.0], [20, 1.0]], "loss distill": [[10, 1.5], [20, 0.5]]},
        "learning rate": {"learning rate": [[10, 0.06], [20, 0.03]]},
        "images per second": {"images per second": [[10, 40.0], [20, 41.0]]},
        "top-1 accuracy (%)": {"kNN, k = 20": [[20, 55.5]]},
    }
    assert all(axis.get_xlabel() == "step" for axis in figures[0].axes)
    assert figures[0].get_suptitle() == "a run"


def test_steps_are_whole_numbers(tmp_path, figures):
    plot_curves([{"step": 1, "loss": 2.0}], tmp_path / "curves.png", "one step")
    (axis,) = figures[0].axes
    low, high = axis.get_xlim()
    assert [tick for tick in axis.get_xticks() if low <= tick <= high] == [1]


def test_an_odd_number_of_panels_leaves_no_empty_frame(tmp_path, figures):
    plot_curves(METRICS[:2], tmp_path / "curves.png", "a run")
    assert [axis.get_visible() for axis in figures[0].axes] == [True, True, True, False]


def test_text_is_at_least_nine_points_and_nothing_overlaps(tmp_path, figures):
    features, labels = clusters(12)
    names = [f"class name {number}" for number in range(12)]
    plot_curves(METRICS, tmp_path / "curves.png", "a run with a long title " * 5)
    plot_embedding_maps(
        {"start": features, "student": features}, labels, names, tmp_path / "pair.png", "long title " * 20
    )
    from matplotlib.text import Text

    for figure in figures:
        figure.canvas.draw()  # positions for the screen's resolution; the file had its own
        assert min(text.get_fontsize() for text in figure.findobj(Text)) >= 9
        texts = [figure._suptitle, *(text for legend in figure.legends for text in legend.get_texts())]
        for axis in figure.axes:
            texts += [axis.title, axis.xaxis.label, axis.yaxis.label]
        boxes = [text.get_window_extent(figure.canvas.get_renderer()) for text in texts if text.get_text()]
        assert len(boxes) >= 9
        for number, box in enumerate(boxes):
            assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
            assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1
            assert not any(box.overlaps(other) for other in boxes[:number])


def test_the_same_input_gives_the_same_bytes(tmp_path):
    features, labels = clusters(3)
    for name in ("one", "two"):
        plot_curves(METRICS, tmp_path / f"curves_{name}.png", "a run")
        plot_embedding_maps({"": features}, labels, None, tmp_path / f"map_{name}.png", "a map")
    for kind in ("curves", "map"):
        first = (tmp_path / f"{kind}_one.png").read_bytes()
        assert first == (tmp_path / f"{kind}_two.png").read_bytes()
        assert b"Software" not in first
        assert b"tIME" not in first


def test_no_global_state_is_touched(tmp_path):
    import matplotlib

    settings, state, threads = dict(matplotlib.rcParams), torch.get_rng_state(), torch.get_num_threads()
    features, labels = clusters(3)
    plot_embedding_maps({"": features}, labels, None, tmp_path / "map.png", "a map")
    plot_curves(METRICS, tmp_path / "curves.png", "a run")
    assert dict(matplotlib.rcParams) == settings
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_pair_has_two_maps_one_legend_and_says_the_projection(tmp_path, figures):
    features, labels = clusters(4, each=10)
    names = ["coat", "bag", "ankle boot", "a name much longer than what a legend can bear"]
    path = tmp_path / "pair.png"
    maps = {"start": features, "student": 2 * features[:, :5]}
    plot_embedding_maps(maps, labels, names, path, "before and after", max_points=30)
    figure = figures[0]
    assert figure.get_suptitle() == "before and after\nt-SNE of 30 of 40 images"
    assert [axis.get_title() for axis in figure.axes] == ["start", "student"]
    assert {axis.get_xlabel() for axis in figure.axes} == {"t-SNE 1"}
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend[:3] == names[:3]
    assert len(legend[3]) <= 22
    assert legend[3].startswith("a name much")
    for axis in figure.axes:
        assert sum(len(points.get_offsets()) for points in axis.collections) == 30
    width, height = png_size(path)
    assert width > 1.5 * height


def test_points_have_the_colour_of_their_class(tmp_path, figures, no_tsne):
    from matplotlib.colors import to_hex

    features, labels = clusters(12, each=5)
    plot_embedding_maps({"": features}, labels, None, tmp_path / "map.png", "a map")
    counts: dict[tuple[int, str], int] = {}
    for number, points in enumerate(figures[0].axes[0].collections):
        for color in points.get_facecolors():
            key = (number, to_hex(color))
            counts[key] = counts.get(key, 0) + 1
    expected = {(label // 10, style.COLORS[label % 10]): 5 for label in range(12)}
    assert counts == expected
    handles = figures[0].legends[0].legend_handles
    assert [(h.get_marker(), h.get_color()) for h in handles] == [
        (embedding_map.MARKERS[label // 10], style.COLORS[label % 10]) for label in range(12)
    ]


def test_many_classes_are_represented_by_some(tmp_path, figures, no_tsne):
    features, labels = clusters(100, each=3)
    plot_embedding_maps({"": features}, labels, None, tmp_path / "map.png", "a map")
    assert figures[0].get_suptitle() == "a map\nPCA of 60 of 300 images, 20 of 100 classes"
    legend = [int(text.get_text()) for text in figures[0].legends[0].get_texts()]
    assert len(set(legend)) == 20
    assert (legend[0], legend[-1]) == (0, 99)


def test_without_labels_there_is_no_legend(tmp_path, figures, no_tsne):
    features, _ = clusters(3)
    plot_embedding_maps({"": features}, None, None, tmp_path / "map.png", "a map")
    assert figures[0].legends == []
    assert len(figures[0].axes[0].collections[0].get_offsets()) == 24


def test_pca_equals_numpy_up_to_sign(no_tsne):
    import numpy as np

    features, _ = clusters(5)
    points, name = project(features)
    unit = (features / features.norm(dim=1, keepdim=True)).double().numpy()
    values, vectors = np.linalg.eigh(np.cov(unit.T))
    reference = (unit - unit.mean(0)) @ vectors[:, ::-1][:, :2]
    assert name == "PCA"
    assert values[-1] > values[-2] > values[-3]
    np.testing.assert_allclose(np.abs(points.numpy()), np.abs(reference), atol=1e-5)


def test_the_sign_of_a_component_is_fixed(no_tsne):
    """The largest score is positive, so the picture does not flip between machines."""
    for seed in range(10):
        points, _ = project(torch.randn(12, 5, generator=torch.Generator().manual_seed(seed)))
        assert (points.max(dim=0).values > -points.min(dim=0).values).all()


def test_few_points_or_dimensions_are_drawn_by_pca():
    points, name = project(torch.eye(3))
    assert (points.shape, name) == ((3, 2), "PCA")
    points, _ = project(torch.tensor([[1.0], [2.0], [-1.0]]))
    assert points.shape == (3, 2)
    assert (points[:, 1] == 0).all()


def test_tsne_keeps_neighbours_together():
    features, labels = clusters(4, each=25)
    points, name = project(features)
    assert name == "t-SNE"
    distances = torch.cdist(points, points).fill_diagonal_(float("inf"))
    assert (labels[distances.argmin(dim=1)] == labels).float().mean() > 0.95


def test_nothing_to_draw_is_said_in_words(tmp_path):
    with pytest.raises(BadData, match="no metrics to draw"):
        plot_curves([{"step": 1, "epoch": 2, "note": "x", "ok": True}], tmp_path / "a.png", "t")
    with pytest.raises(BadData, match="three at least; got 2"):
        plot_embedding_maps({"": torch.rand(2, 3)}, None, None, tmp_path / "a.png", "t")
    with pytest.raises(BadData, match="5 features but 4 labels"):
        plot_embedding_maps({"": torch.rand(5, 3)}, torch.zeros(4), None, tmp_path / "a.png", "t")
    with pytest.raises(BadData, match="same images"):
        plot_embedding_maps({"a": torch.rand(5, 3), "b": torch.rand(4, 3)}, None, None, tmp_path / "a.png", "t")
    assert not (tmp_path / "a.png").exists()


def test_matplotlib_missing_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match=r"disco-zoo\[train\]"):
        plot_curves(METRICS, tmp_path / "a.png", "t")


def test_importing_the_module_does_not_import_matplotlib():
    import subprocess

    code = "import sys, disco_zoo.plotting.style; sys.exit('matplotlib' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert importlib.util.find_spec("matplotlib") is not None


def test_one_panel_for_all_precisions_and_one_a_rank(tmp_path, figures):
    row = {"step": 5, "box_ap": 30.0, "box_ap50": 50.0, "mask_ap75": 20.0, "val_top1": 70.0, "val_top5": 95.0}
    plot_curves([row], tmp_path / "curves.png", "a run")
    drawn = {axis.get_ylabel(): [line.get_label() for line in axis.lines] for axis in figures[0].axes}
    assert drawn == {
        "average precision (%)": ["box AP", "box AP50", "mask AP75"],
        "top-1 accuracy (%)": ["val"],
        "top-5 accuracy (%)": ["val"],
        "": [],
    }


def test_what_is_watched_without_labels_comes_last_ranks_in_one_panel(tmp_path, figures):
    start = {"step": 0, "epoch": 0, "student_rank": 2.0, "student_rank_bound": 512, "teacher_rank": 90.5, "cka": 0.1}
    plot_curves([start, *METRICS[:1], {"step": 25, "embedding_rank": 7.0, "collapsed": ["x"]}], tmp_path / "a.png", "t")
    drawn = {axis.get_ylabel(): [line.get_label() for line in axis.lines] for axis in figures[0].axes}
    assert [panel for panel in drawn.items() if panel[0]][-3:] == [
        ("images per second", ["images per second"]),
        ("effective rank", ["student", "teacher", "embedding"]),
        ("agreement with the teacher", ["CKA"]),
    ]


def test_a_dollar_in_a_name_is_a_dollar(tmp_path):
    features, labels = clusters(2)
    names = ["$a_{$", "$\\frac$"]
    plot_embedding_maps({"": features}, labels, names, tmp_path / "map.svg", "from $5 to $6 \\nothing")
    text = (tmp_path / "map.svg").read_text()
    for words in (*names, "from $5 to $6 \\nothing"):
        assert f">{words}<" in text


def test_a_picture_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    path = tmp_path / "curves.png"
    plot_curves(METRICS, path, "a run")
    before = path.read_bytes()

    def cut_short(self, file, **options):
        with open(file, "wb") as out:
            out.write(before[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FigureCanvasAgg, "print_figure", cut_short)
    with pytest.raises(OSError, match="No space left"):
        plot_curves(METRICS[:1], path, "another run")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_picture_that_cannot_be_written_is_told_before(tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("")
    for name, error, words in (
        ("a.jpg", BadData, "must end in .png or .svg"),
        ("folder.png", CannotWrite, "is a folder"),
        ("file/a.png", CannotWrite, "Cannot write"),
    ):
        with pytest.raises(error, match=words):
            require_picture(tmp_path / name)
    require_picture(tmp_path / "new" / "a.svg")
    assert (tmp_path / "new").is_dir()
