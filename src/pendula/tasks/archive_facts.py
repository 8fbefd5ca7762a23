"""What is known of the sets of the UCR and UEA archives: their names, and the content of those that were looked at."""

from __future__ import annotations

from typing import NamedTuple


class Facts(NamedTuple):
    """The content of a set.

    counts: series in train and in test, steps, channels, classes; sha256 and size: of the npz file of the shared data;
    content, labels: SHA-256 of all arrays, and of labels and lengths alone (`archive_files.content_digest`);
    projection: `archive_files.projection`.
    """

    counts: tuple[int, int, int, int, int]
    sha256: str
    size: int
    content: str
    labels: str
    projection: float


KNOWN = {
    "ACSF1": Facts(
        (100, 100, 1460, 1, 10),
        "fac7ecf45b82d1d8e9cd28934c655e8f13f0318d1f70b01b9a6c7d197f43c0d0",
        423195,
        "a0d0a1760dc824b016cd55c99a2d5e9cf064f3544396a63dfbcc55cfdcef4068",
        "84fe1c46f8c16b923e6d71deb57fb8cb2e6a3507a41e32b636831b051eca9f59",
        -16.71921327,
    ),
    "ArrowHead": Facts(
        (36, 175, 251, 1, 3),
        "0776b3636804c5437528ab38d3393191758b7372688a429af855d332f2f538f0",
        190266,
        "9c5b05cb2f6fc5af9b4fb278381e909fc714c9dfba7c5b65aeae89b98a24b2a8",
        "38e7719fd4b0b95cc8e597de7a67cfc60007093d614a80e1d1a759bca9f26740",
        3.166708646,
    ),
    "AsphaltObstacles": Facts(
        (390, 391, 736, 1, 4),
        "a1e11c33aafa1ee8e41975afe42666c3a99b576dd1a67ee1d587dfadd3a4d78a",
        884639,
        "9eb206659cd1d7011dd29947fa68f4444032551a250aa70e4fd8fe9bc2cc7b33",
        "e881011d18952f94ae58ffc4cc9b0f392fc07d5d8096c76ac667761a178f4856",
        -611.9075846,
    ),
    "BasicMotions": Facts(
        (40, 40, 100, 6, 4),
        "c828b8db16be794284769f86ca0e94376e0671bdb12460900dd8bd5bcfa88fab",
        141707,
        "ba2fbe561f7a16c6ba658ed78438887baf6c5957c1f95ca08854fc455a81e79b",
        "2179d933a7e25289e45d73cf0d170069666a29badbb513745254b41ba263c225",
        128.6105604,
    ),
    "GunPoint": Facts(
        (50, 150, 150, 1, 2),
        "fb6c93ef960ddff2efeba31cf13c865b1de4e8c8f0898176a90b05ecf2e13ba9",
        107814,
        "74e9ad3f396d4c1ea3937416fd983506942dada274c62763839be8388c1326d3",
        "8fc80b609ae75ab0b9dec7d9b7b21de0cd8a961baf6f9120ba91113bc169ce86",
        4.225463553,
    ),
    "JapaneseVowels": Facts(
        (270, 370, 29, 12, 9),
        "d5a6600606620052477631674af1f0d9211382b5cf3c1699b5c52e1bda93fd49",
        451412,
        "7883b231e835e34a27537626a9a949b25454a9c5eec572efdb4fcb7b0f01ec74",
        "cae2601d12a5b6a9e67d110973464365dade2743668b4162d2fff5f1c026a96f",
        -24.71458102,
    ),
    "OSULeaf": Facts(
        (200, 242, 427, 1, 6),
        "030903abba20393e6c2fde0b703d79cddf0937d4b52b582ec0966b7f750764d9",
        699503,
        "9556fbd79976a2400a424c19580be0af661424504ce9be568ed3680fab8ad4c5",
        "f91422ec0ce9993773972110670dd52a42263ea30f4aecac522d23e87a5ba003",
        -1.007628725,
    ),
    "SelfRegulationSCP1": Facts(
        (268, 293, 896, 6, 2),
        "c5b99778610e4977ac1a4b8f52d28e63f4e5aaf77744deed609787966daf2f18",
        2091714,
        "63c097f6bd60d3852517f4afccfed3b3d0cfa00c1e410acb9b536293639d614c",
        "cc9ca329d8c20ba08c4c0dad75e8705574b515fc9b69d6a04a0e8e1f6bdf67c4",
        -11834.49668,
    ),
}

# 128 of the UCR archive (2018), 30 of the UEA archive (2018), the asphalt sets that came later
_NAMES = """
    ACSF1 Adiac AllGestureWiimoteX AllGestureWiimoteY AllGestureWiimoteZ ArrowHead Beef BeetleFly BirdChicken
    BME Car CBF Chinatown ChlorineConcentration CinCECGTorso Coffee Computers CricketX CricketY CricketZ Crop
    DiatomSizeReduction DistalPhalanxOutlineAgeGroup DistalPhalanxOutlineCorrect DistalPhalanxTW DodgerLoopDay
    DodgerLoopGame DodgerLoopWeekend Earthquakes ECG200 ECG5000 ECGFiveDays ElectricDevices
    EOGHorizontalSignal EOGVerticalSignal EthanolLevel FaceAll FaceFour FacesUCR FiftyWords Fish FordA FordB
    FreezerRegularTrain FreezerSmallTrain Fungi GestureMidAirD1 GestureMidAirD2 GestureMidAirD3
    GesturePebbleZ1 GesturePebbleZ2 GunPoint GunPointAgeSpan GunPointMaleVersusFemale GunPointOldVersusYoung
    Ham HandOutlines Haptics Herring HouseTwenty InlineSkate InsectEPGRegularTrain InsectEPGSmallTrain
    InsectWingbeatSound ItalyPowerDemand LargeKitchenAppliances Lightning2 Lightning7 Mallat Meat
    MedicalImages MelbournePedestrian MiddlePhalanxOutlineAgeGroup MiddlePhalanxOutlineCorrect MiddlePhalanxTW
    MixedShapesRegularTrain MixedShapesSmallTrain MoteStrain NonInvasiveFetalECGThorax1
    NonInvasiveFetalECGThorax2 OliveOil OSULeaf PhalangesOutlinesCorrect Phoneme PickupGestureWiimoteZ
    PigAirwayPressure PigArtPressure PigCVP PLAID Plane PowerCons ProximalPhalanxOutlineAgeGroup
    ProximalPhalanxOutlineCorrect ProximalPhalanxTW RefrigerationDevices Rock ScreenType SemgHandGenderCh2
    SemgHandMovementCh2 SemgHandSubjectCh2 ShakeGestureWiimoteZ ShapeletSim ShapesAll SmallKitchenAppliances
    SmoothSubspace SonyAIBORobotSurface1 SonyAIBORobotSurface2 StarLightCurves Strawberry SwedishLeaf Symbols
    SyntheticControl ToeSegmentation1 ToeSegmentation2 Trace TwoLeadECG TwoPatterns UMD UWaveGestureLibraryAll
    UWaveGestureLibraryX UWaveGestureLibraryY UWaveGestureLibraryZ Wafer Wine WordSynonyms Worms WormsTwoClass
    Yoga
    ArticularyWordRecognition AtrialFibrillation BasicMotions CharacterTrajectories Cricket DuckDuckGeese
    EigenWorms Epilepsy EthanolConcentration ERing FaceDetection FingerMovements HandMovementDirection
    Handwriting Heartbeat InsectWingbeat JapaneseVowels Libras LSST MotorImagery NATOPS PenDigits PEMS-SF
    PhonemeSpectra RacketSports SelfRegulationSCP1 SelfRegulationSCP2 SpokenArabicDigits StandWalkJump
    UWaveGestureLibrary
    AsphaltObstacles AsphaltPavementType AsphaltRegularity AsphaltObstaclesCoordinates
    AsphaltPavementTypeCoordinates AsphaltRegularityCoordinates
"""
NAMES = tuple(_NAMES.split())
