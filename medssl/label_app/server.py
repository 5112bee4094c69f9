"""The server behind 3D Slicer: the calls that Slicer makes, each checked, and nothing else.

MONAI Label's own server answers more, to anybody, in the thread that also listens. This one takes its functions,
runs them in threads and leaves out what no viewer needs: model upload, reload, proxies, batch inference.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

from fastapi import APIRouter, BackgroundTasks, Body, FastAPI, File, Form, Request, UploadFile
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
from monailabel.config import settings
from monailabel.endpoints.infer import send_response
from monailabel.interfaces.exception import MONAILabelException
from monailabel.interfaces.utils.app import app_instance
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from medssl import __version__
from medssl.errors import MedsslError
from medssl.io.lock import locked
from medssl.label_app import background, checks
from medssl.label_app.main import LabelApp
from medssl.label_app.origins import OwnOriginOnly, known_hosts
from medssl.workflows.labeling.workspace import read_settings

logger = logging.getLogger(__name__)
router = APIRouter()
Params = Annotated[str, Form()]


@router.get("/info/")
def info() -> dict[str, Any]:
    """Say what there is: models, trainers, strategies, scans."""
    app = _app()
    return {**app.info(), "train_stats": background.train_stats(app)}


@router.post("/activelearning/{strategy}")
def next_sample(strategy: str, params: Annotated[dict[str, Any] | None, Body()] = None) -> dict[str, Any]:
    """Offer a scan to label."""
    app, name = _app(), checks.identifier(strategy, "strategy")
    if name not in app.strategies:
        msg = f"There is no strategy '{name}'; there are {', '.join(app.strategies)}."
        raise checks.NotThere(msg)
    told = checks.plain_object(params)
    found = app.next_sample({"strategy": name})
    if not found:
        return {}
    offered = {name: {"ts": int(time.time()), "client_id": told.get("client_id")}}
    app.datastore().update_image_info(found["id"], {"strategy": offered})
    return {**found, **app.datastore().get_image_info(found["id"])}


@router.post("/infer/{model}")
def infer(
    model: str,
    background_tasks: BackgroundTasks,
    image: str = "",
    session_id: str = "",
    params: Params = "{}",
    file: Annotated[UploadFile | None, File()] = None,
    output: Literal["all", "image", "json"] = "all",
) -> Any:
    """Segment a scan of the server, of a session, or one that comes along."""
    app, told = _app(), checks.json_object(params)
    if model not in app.info()["models"]:
        msg = f"There is no model '{checks.identifier(model, 'model')}'; there is {', '.join(app.info()['models'])}."
        raise checks.NotThere(msg)
    with TemporaryDirectory() as folder:
        if file is not None:
            subject = app.scans.scan_at(_received(file, Path(folder)))
        elif session_id:
            subject = app.scans.scan_at(_session_image(app, session_id))
        else:
            subject = app.scans.subject(checks.identifier(image))
        result = app.infer({**told, "model": model, "image": subject})
    background_tasks.add_task(shutil.rmtree, Path(result["file"]).parent, ignore_errors=True)
    return send_response(app.datastore(), result, output, background_tasks)


@router.get("/train/")
def train_status(all: bool = False, check_if_running: bool = False) -> Any:  # noqa: A002 - MONAI Label's name
    """Say how the last training goes: its log, its progress, its Dice."""
    return background.status(_app(), everything=all, check_if_running=check_if_running)


@router.post("/train/{model}")
def train(model: str, params: Annotated[dict[str, Any] | None, Body()] = None) -> Any:
    """Begin a training."""
    return background.start(_app(), checks.identifier(model, "trainer"), checks.plain_object(params))


@router.delete("/train/")
def train_stop() -> Any:
    """Stop the training that runs; it goes on from there the next time."""
    return background.stop()


@router.get("/datastore/")
def datastore(output: str = "stats") -> Any:
    """List the scans and their labels."""
    store = _app().datastore()
    answers = {"all": store.json, "train": store.datalist, "stats": store.status}
    if output not in answers:
        msg = f"output is {output!r}; expected one of {', '.join(answers)}."
        raise checks.RequestError(msg)
    return answers[output]()


@router.get("/datastore/image")
@router.head("/datastore/image")
def download_image(image: str) -> FileResponse:
    """Send a scan's first contrast."""
    return _file(Path(_app().datastore().get_image_uri(image)))


@router.get("/datastore/image/info")
def image_info(image: str) -> dict[str, Any]:
    """Say what is known about a scan."""
    return _app().datastore().get_image_info(image)


@router.put("/datastore/")
@router.put("/datastore/image")
def upload_image(
    file: Annotated[UploadFile, File()], image: str = "", params: Params = "{}"
) -> dict[str, str]:
    """Keep a scan that a viewer sends."""
    checks.json_object(params)
    with TemporaryDirectory() as folder:
        received = _received(file, Path(folder))
        name = image or received.name.removesuffix(checks.ending(received.name) or "")
        return {"image": _app().datastore().add_image(name, str(received), {})}


@router.get("/datastore/label")
@router.head("/datastore/label")
def download_label(label: str = "", tag: str = "final", image: str = "") -> FileResponse:
    """Send a label."""
    found = _app().datastore().get_label_uri(label or image, tag)
    if not found:
        msg = "Label NOT Found"
        raise checks.NotThere(msg)
    return _file(Path(found))


@router.get("/datastore/label/info")
def label_info(label: str, tag: str = "final") -> dict[str, Any]:
    """Say what the segments of a label were called."""
    return _app().datastore().get_label_info(label, tag)


@router.put("/datastore/label")
def save_label(
    image: str, label: Annotated[UploadFile, File()], params: Params = "{}", tag: str = "final"
) -> dict[str, str]:
    """Keep a label that a viewer sends."""
    told = checks.json_object(params)
    with TemporaryDirectory() as folder:
        received = _received(label, Path(folder))
        key = _app().datastore().save_label(image, str(received), tag or "final", told)
    return {"image": key, "label": key}


@router.delete("/datastore/label")
def remove_label(id: str, tag: str) -> dict[str, str]:  # noqa: A002 - MONAI Label's name
    """Take back a label; the file is kept under another name."""
    _app().datastore().remove_label(id, tag)
    return {}


@router.put("/session/")
def create_session(files: Annotated[list[UploadFile], File()], expiry: int = 0) -> dict[str, Any]:
    """Keep a scan, one file a contrast, for some answers."""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "scan"
        folder.mkdir()
        received = [_received(file, folder) for file in files]
        kept = received[0] if len(received) == 1 else folder
        name, session = _app().sessions().add_session(str(kept), max(0, expiry))
    return {"session_id": name, "session_info": session.to_json()}


@router.get("/session/{session_id}")
def get_session(session_id: str, update_ts: bool = False) -> dict[str, Any]:
    """Say what a session holds."""
    return _session(_app(), session_id, update_ts=update_ts).to_json()


@router.delete("/session/{session_id}")
def remove_session(session_id: str) -> dict[str, Any]:
    """Forget a session."""
    app = _app()
    session = _session(app, session_id)
    app.sessions().remove_session(session_id)
    return session.to_json()


@router.get("/logs/")
def logs(lines: int = 300) -> PlainTextResponse:
    """Send the last lines of the log."""
    path = Path(settings.MONAI_LABEL_APP_DIR) / "logs" / "app.log"
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return PlainTextResponse("\n".join(text.splitlines()[-max(1, min(lines, 10_000)) :]))


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Hold the folder while the server runs; end its training with it."""
    workspace = read_settings(Path(settings.MONAI_LABEL_APP_DIR)).workspace
    with ExitStack() as stack:
        stack.enter_context(locked(workspace.lock, f"The folder {workspace.folder.name}"))
        _forget_sessions(workspace.sessions)
        stack.callback(background.stop)
        instance = app_instance()
        instance.server_mode(True)
        instance.on_init_complete()
        yield


def _forget_sessions(folder: Path) -> None:
    """Delete the scans that were sent for one answer to a server that has ended."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)


def _answer_problem(request: Request, error: Exception) -> JSONResponse:
    """Say what is wrong: 404 for what is not there, 400 for what cannot be used."""
    missing = isinstance(error, checks.NotThere)
    text = getattr(error, "msg", None) or str(error)
    logger.info("%s %s: %s", request.method, request.url.path, text)
    return JSONResponse({"detail": text}, status_code=404 if missing else 400)


def _answer_unexpected(request: Request, error: Exception) -> JSONResponse:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    detail = f"Unexpected {type(error).__name__}; the log of the server (GET /logs/) says more."
    return JSONResponse({"detail": detail}, status_code=500)


def _app() -> LabelApp:
    return app_instance()


def _file(path: Path) -> FileResponse:
    return FileResponse(path, media_type="application/octet-stream", filename=path.name)


def _sessions(app: LabelApp) -> Path:
    return app.settings.workspace.sessions


def _session(app: LabelApp, name: str, *, update_ts: bool = True) -> Any:
    found = app.sessions().get_session(checks.session_id(name), update_ts=update_ts)
    if found is None:
        msg = f"Session ({name}) Not Found"
        raise checks.NotThere(msg)
    return found


def _session_image(app: LabelApp, name: str) -> Path:
    return checks.inside(_session(app, name).image, _sessions(app))


def _received(file: UploadFile, folder: Path) -> Path:
    """Write an uploaded file into a folder, under its own checked name."""
    path = folder / checks.file_name(file.filename or "volume.nii.gz")
    with path.open("wb") as stream:
        shutil.copyfileobj(file.file, stream)
    return path


def _application() -> FastAPI:
    """Build the server for the settings of the app folder."""
    hosts = known_hosts(read_settings(Path(settings.MONAI_LABEL_APP_DIR)).hosts)
    made = FastAPI(
        title="medssl",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False),
            Middleware(OwnOriginOnly, hosts=hosts),
        ],
        exception_handlers={
            MedsslError: _answer_problem,
            MONAILabelException: _answer_problem,
            Exception: _answer_unexpected,
        },
    )
    made.include_router(router)
    return made


app = _application()
