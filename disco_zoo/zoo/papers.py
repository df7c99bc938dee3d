"""The papers of the zoo's methods, teachers and data: one line of text and a BibTeX entry each."""

from __future__ import annotations

from dataclasses import dataclass

from disco_zoo.zoo.schema import METHODS


@dataclass(frozen=True)
class Paper:
    """One publication. `authors` as BibTeX writes them; `venue` with what kind of entry it makes."""

    short: str
    key: str
    authors: str
    title: str
    kind: str
    venue: str
    year: int
    url: str

    @property
    def reference(self) -> str:
        """`Gao et al., TITLE, VENUE 2022, URL`."""
        first = self.authors.split(",")[0]
        others = " et al." if " and " in self.authors else ""
        return f"{first}{others}, {self.title}, {self.venue} {self.year}, {self.url}"

    @property
    def bibtex(self) -> str:
        """The entry, over several lines."""
        field = {"inproceedings": "booktitle", "article": "journal"}.get(self.kind, "howpublished")
        return (
            f"@{self.kind}{{{self.key},\n"
            f"  author = {{{self.authors}}},\n"
            f"  title = {{{self.title}}},\n"
            f"  {field} = {{{self.venue}}},\n"
            f"  year = {{{self.year}}},\n"
            f"  url = {{{self.url}}},\n"
            "}"
        )


PAPERS = {
    "disco": Paper(
        short="DisCo",
        key="gao2022disco",
        authors="Gao, Yuting and Zhuang, Jia-Xin and Lin, Shaohui and Cheng, Hao and Sun, Xing and Li, Ke and "
        "Shen, Chunhua",
        title="DisCo: Remedying Self-supervised Learning on Lightweight Models with Distilled Contrastive Learning",
        kind="inproceedings",
        venue="ECCV",
        year=2022,
        url="https://arxiv.org/abs/2104.09124",
    ),
    "moco_v2": Paper(
        short="MoCo-v2",
        key="chen2020mocov2",
        authors="Chen, Xinlei and Fan, Haoqi and Girshick, Ross and He, Kaiming",
        title="Improved Baselines with Momentum Contrastive Learning",
        kind="article",
        venue="arXiv:2003.04297",
        year=2020,
        url="https://arxiv.org/abs/2003.04297",
    ),
    "seed": Paper(
        short="SEED",
        key="fang2021seed",
        authors="Fang, Zhiyuan and Wang, Jianfeng and Wang, Lijuan and Zhang, Lei and Yang, Yezhou and Liu, Zicheng",
        title="SEED: Self-supervised Distillation For Visual Representation",
        kind="inproceedings",
        venue="ICLR",
        year=2021,
        url="https://arxiv.org/abs/2101.04731",
    ),
    "compress": Paper(
        short="CompRess",
        key="koohpayegani2020compress",
        authors="Koohpayegani, Soroush Abbasi and Tejankar, Ajinkya and Pirsiavash, Hamed",
        title="CompRess: Self-Supervised Learning by Compressing Representations",
        kind="inproceedings",
        venue="NeurIPS",
        year=2020,
        url="https://proceedings.neurips.cc/paper/2020/file/975a1c8b9aee1c48d32e13ec30be7905-Paper.pdf",
    ),
    "bingo": Paper(
        short="BINGO",
        key="xu2022bingo",
        authors="Xu, Haohang and Fang, Jiemin and Zhang, Xiaopeng and Xie, Lingxi and Wang, Xinggang and Dai, Wenrui "
        "and Xiong, Hongkai and Tian, Qi",
        title="Bag of Instances Aggregation Boosts Self-supervised Distillation",
        kind="inproceedings",
        venue="ICLR",
        year=2022,
        url="https://arxiv.org/abs/2107.01691",
    ),
    "crd": Paper(
        short="CRD",
        key="tian2020crd",
        authors="Tian, Yonglong and Krishnan, Dilip and Isola, Phillip",
        title="Contrastive Representation Distillation",
        kind="inproceedings",
        venue="ICLR",
        year=2020,
        url="https://arxiv.org/abs/1910.10699",
    ),
    "rkd": Paper(
        short="RKD",
        key="park2019rkd",
        authors="Park, Wonpyo and Kim, Dongju and Lu, Yan and Cho, Minsu",
        title="Relational Knowledge Distillation",
        kind="inproceedings",
        venue="CVPR",
        year=2019,
        url="https://arxiv.org/abs/1904.05068",
    ),
    "coss": Paper(
        short="CoSS",
        key="singh2024coss",
        authors="Singh, Aditya and Wang, Haohan",
        title="Simple Unsupervised Knowledge Distillation With Space Similarity",
        kind="inproceedings",
        venue="ECCV",
        year=2024,
        url="https://arxiv.org/abs/2409.13939",
    ),
    "ssl_small": Paper(
        short="ssl-small",
        key="shi2022small",
        authors="Shi, Haizhou and Zhang, Youcai and Tang, Siliang and Zhu, Wenjie and Li, Yaqian and Guo, Yandong and "
        "Zhuang, Yueting",
        title="On the Efficacy of Small Self-Supervised Contrastive Models without Distillation Signals",
        kind="inproceedings",
        venue="AAAI",
        year=2022,
        url="https://arxiv.org/abs/2107.14762",
    ),
    "swav": Paper(
        short="SwAV",
        key="caron2020swav",
        authors="Caron, Mathilde and Misra, Ishan and Mairal, Julien and Goyal, Priya and Bojanowski, Piotr and "
        "Joulin, Armand",
        title="Unsupervised Learning of Visual Features by Contrasting Cluster Assignments",
        kind="inproceedings",
        venue="NeurIPS",
        year=2020,
        url="https://arxiv.org/abs/2006.09882",
    ),
    "simclr": Paper(
        short="SimCLR",
        key="chen2020simclr",
        authors="Chen, Ting and Kornblith, Simon and Norouzi, Mohammad and Hinton, Geoffrey",
        title="A Simple Framework for Contrastive Learning of Visual Representations",
        kind="inproceedings",
        venue="ICML",
        year=2020,
        url="https://arxiv.org/abs/2002.05709",
    ),
    "fashion_mnist": Paper(
        short="Fashion-MNIST",
        key="xiao2017fashion",
        authors="Xiao, Han and Rasul, Kashif and Vollgraf, Roland",
        title="Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms",
        kind="article",
        venue="arXiv:1708.07747",
        year=2017,
        url="https://arxiv.org/abs/1708.07747",
    ),
    "cifar10": Paper(
        short="CIFAR-10",
        key="krizhevsky2009cifar",
        authors="Krizhevsky, Alex",
        title="Learning Multiple Layers of Features from Tiny Images",
        kind="misc",
        venue="Technical report, University of Toronto",
        year=2009,
        url="https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
    "imagenet": Paper(
        short="ImageNet",
        key="russakovsky2015imagenet",
        authors="Russakovsky, Olga and Deng, Jia and Su, Hao and Krause, Jonathan and Satheesh, Sanjeev and Ma, Sean "
        "and Huang, Zhiheng and Karpathy, Andrej and Khosla, Aditya and Bernstein, Michael and Berg, Alexander C. "
        "and Fei-Fei, Li",
        title="ImageNet Large Scale Visual Recognition Challenge",
        kind="article",
        venue="International Journal of Computer Vision",
        year=2015,
        url="https://arxiv.org/abs/1409.0575",
    ),
    "tiny_imagenet": Paper(
        short="Tiny ImageNet",
        key="le2015tiny",
        authors="Le, Ya and Yang, Xuan",
        title="Tiny ImageNet Visual Recognition Challenge",
        kind="misc",
        venue="Report, CS 231N, Stanford University",
        year=2015,
        url="http://vision.stanford.edu/teaching/cs231n/reports/2015/pdfs/yle_project.pdf",
    ),
    "imagenette": Paper(
        short="Imagenette",
        key="howard2019imagenette",
        authors="Howard, Jeremy",
        title="Imagenette: A smaller subset of 10 easily classified classes from Imagenet",
        kind="misc",
        venue="fast.ai",
        year=2019,
        url="https://github.com/fastai/imagenette",
    ),
}
# Methods that are not called as their paper: what people call them, and the paper.
_OTHERS = {
    "compress_1q": ("CompRess-1q", "compress"),
    "compress_2q": ("CompRess-2q", "compress"),
    "compress_2q_momentum": ("CompRess-2q with momentum", "compress"),
    "disco_swav": ("DisCo on SwAV", "disco"),
    "feature": ("feature distillation", None),
    "kd_mse": ("feature regression", None),
}
METHOD_TITLES = {method: _OTHERS[method][0] if method in _OTHERS else PAPERS[method].short for method in METHODS}
METHOD_PAPERS = {method: _OTHERS[method][1] if method in _OTHERS else method for method in METHODS}


def papers_of(*keys: str | None) -> list[Paper]:
    """The papers of these keys, each once, without those that are None or unknown (a catalog of the user's own)."""
    return [PAPERS[key] for key in dict.fromkeys(keys) if key in PAPERS]
