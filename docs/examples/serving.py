"""Export a run as one program, and serve it: `python serving.py` asks it once, `uvicorn serving:app` keeps serving."""

from pathlib import Path

import torch
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import gmsa

FILE = Path("model.pt2")
if not FILE.exists():
    gmsa.fit("synthetic", seeds=[1]).export(FILE)

program = torch.export.load(FILE).module()  # your own file: torch unpickles what is in it
inputs = gmsa.ProgramInputs(FILE)


def answer(utterances: list[dict]) -> list[dict]:
    """Predicts utterances as JSON has them: an id, and for each modality that is there a list of steps."""
    clips = []
    for one in utterances:
        features = {m: torch.tensor(one[m], dtype=torch.float32) for m in inputs.dims if one.get(m)}
        clips.append(gmsa.Utterance(str(one["id"]), features))
    with torch.inference_mode():
        found = program(inputs(clips))
    return [{"id": clip.id, "value": value} for clip, value in zip(clips, found["value"].tolist(), strict=True)]


async def predict(request: Request) -> JSONResponse:
    """Answers a batch, or says what is wrong with it."""
    try:
        return JSONResponse(answer(await request.json()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # DataError is a ValueError
        return JSONResponse({"error": str(error)}, status_code=400)


app = Starlette(routes=[Route("/predict", predict, methods=["POST"])])

if __name__ == "__main__":
    from starlette.testclient import TestClient

    clip = {"id": "clip"} | {m: torch.ones(5, dim).tolist() for m, dim in inputs.dims.items()}
    print(TestClient(app).post("/predict", json=[clip]).json())
