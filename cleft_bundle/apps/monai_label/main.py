"""Serve a trained bundle in MONAI Label: ``monailabel start_server --app FOLDER --studies FOLDER``."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import monailabel
import torch
from dicomweb_client.session_utils import create_session_from_user_pass
from fastapi import HTTPException
from lib.activelearning.strategies import strategies
from lib.datastores import EXTENSIONS, MODALITIES, RadiographDatastore, RadiographDICOMweb
from lib.infers import PromptTask, infers
from lib.model import ServedModel
from lib.refusals import refusals, refuse_second_tasks, under_way
from lib.scoring.scoring import CleftScoring, ImageFiles
from lib.scoring.table import FILE_NAME, METHOD, ScoreTable
from lib.settings import Settings
from lib.trainers.train_task import CleftTrainTask
from monailabel.config import settings as server
from monailabel.datastore.dicom import DICOMwebClientX
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.exception import ImageNotFoundException
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask

import cleft_bundle
from cleft_bundle.errors import BundleError

logger = logging.getLogger(__name__)


class MyApp(MONAILabelApp):
    """CLEFT in MONAI Label.

    Args:
        app_dir: folder of this application.
        studies: folder of images, or address of a DICOMweb service.
        conf: values of ``--conf``, see :class:`lib.settings.Settings`.

    Where what is to be served is missing or does not fit, the process ends with one line that says why.
    """

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str]) -> None:
        try:
            self.settings = Settings.of(conf or {}, app_dir)
            self.model = ServedModel(self.settings.model, self.settings.device)
        except BundleError as error:
            _refuse(str(error))
        refuse_second_tasks()
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=dict(conf or {}),
            name=f"CLEFT ({cleft_bundle.__version__})",
            description="Scores of radiographs by classes and in words",
            version=monailabel.__version__,
        )

    def init_datastore(self) -> Datastore:
        """A folder of radiographs, or what a PACS has of them."""
        if self.studies.startswith(("http://", "https://")):
            return super().init_datastore()
        default = type(server).model_fields["MONAI_LABEL_DATASTORE_FILE_EXT"].default
        given = server.MONAI_LABEL_DATASTORE_FILE_EXT
        return RadiographDatastore(
            self.studies,
            self.model,
            EXTENSIONS if given == default else given,
            auto_reload=server.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
            read_only=server.MONAI_LABEL_DATASTORE_READ_ONLY,
        )

    def _init_dicomweb_datastore(self) -> Datastore:
        """A PACS; MONAI Label's own would download tools for segmentations, and list CT."""
        user, password = server.MONAI_LABEL_DICOMWEB_USERNAME, server.MONAI_LABEL_DICOMWEB_PASSWORD
        client = DICOMwebClientX(
            url=self.studies,
            session=create_session_from_user_pass(user, password) if user and password else None,
            qido_url_prefix=server.MONAI_LABEL_QIDO_PREFIX,
            wado_url_prefix=server.MONAI_LABEL_WADO_PREFIX,
            stow_url_prefix=server.MONAI_LABEL_STOW_PREFIX,
        )
        default = type(server).model_fields["MONAI_LABEL_DICOMWEB_SEARCH_FILTER"].default
        given = server.MONAI_LABEL_DICOMWEB_SEARCH_FILTER
        return RadiographDICOMweb(
            client,
            self.model,
            [{"Modality": modality} for modality in MODALITIES] if given == default else [given],
            server.MONAI_LABEL_DICOMWEB_CACHE_PATH.strip() or None,
            server.MONAI_LABEL_DICOMWEB_FETCH_BY_FRAME,
        )

    def init_infers(self) -> dict[str, InferTask]:
        """``cleft_classifier``, and ``cleft_prompt`` where there is a language model."""
        return infers(self.model, self.settings)

    def init_trainers(self) -> dict[str, TrainTask]:
        """``cleft_classifier``, where there is a bundle to train by."""
        settings = self.settings
        if settings.bundle is None:
            logger.info("nothing can be trained: --conf bundle names the folder of the bundle")
            return {}
        network = settings.network, settings.values, settings.cleft
        task = CleftTrainTask(settings.bundle, self.model, self.conf, *network)
        return {"cleft_classifier": task}

    def init_strategies(self) -> dict[str, Strategy]:
        """All strategies of the bundle."""
        return strategies(self.model, self._table)

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        """Scoring methods whose results the strategies choose by."""
        return {METHOD: CleftScoring(self.model, self._table)}

    def on_init_complete(self) -> None:
        """Check the language side too before the server answers."""
        prompt = self._infers.get("cleft_prompt")
        try:
            if isinstance(prompt, PromptTask):
                prompt.load()
        except BundleError as error:
            _refuse(f"{error}; --conf cleft none serves without prompts")
        super().on_init_complete()

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Score an image; what is wrong with it is answered with the reason."""
        with refusals():
            image = request.get("image")
            known = datastore or self.datastore()
            if isinstance(image, str) and not Path(image).exists() and not known.get_image_uri(image):
                raise ImageNotFoundException(f"image {image!r} is not in the datastore")
            return super().infer(request, datastore)

    def batch_infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Score many images; one that cannot be read stops none of the others."""

        def infer(one: dict[str, Any], store: Datastore) -> dict[str, Any]:
            try:
                return self.infer(one, store)
            except HTTPException as error:
                logger.warning("an image was not scored: %s", error.detail)
                return {"error": error.detail}

        # without a GPU, MONAI Label 0.8.5 divides the images among no devices
        given = {"multi_gpu": torch.cuda.is_available(), **request}
        return self._batch_infer(given, datastore or self.datastore(), infer)

    def train(self, request: dict[str, Any]) -> dict[str, Any]:
        """Train on the final labels; what is wrong with them is answered with the reason."""
        with refusals():
            return super().train(request)

    def next_sample(self, request: dict[str, Any]) -> dict[str, Any]:
        """Choose the next image to label; where scores are missing, they are computed in the background."""
        with refusals():
            try:
                return super().next_sample(request)
            except BundleError:
                if self._auto_update_scoring:
                    self.async_scoring(None)
                raise

    def async_scoring(self, method: str | None, params: dict[str, Any] | None = None) -> Any:
        """Score in the background; where nobody names a method, only if it is needed and not under way."""
        if not method:
            images = ImageFiles(self.datastore())
            if under_way("scoring") or len(self._table.entries(self.model.digest, images)) == len(images):
                return {}
        return super().async_scoring(method, params)

    @cached_property
    def _table(self) -> ScoreTable:
        return ScoreTable(Path(self._datastore.folder) / FILE_NAME)


def _refuse(reason: str) -> NoReturn:
    """End the process: MONAI Label builds the application inside its web server, which would print a traceback."""
    print(f"error: {reason}", file=sys.stderr, flush=True)
    os._exit(1)
