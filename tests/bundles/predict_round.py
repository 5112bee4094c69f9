"""Run by one process or by torchrun: predict the first round, show what came out, then train all rounds."""

import json
import os
import sys

import torch
from monai.bundle import ConfigWorkflow


def main(out, *files):
    """Write the prediction of the first round as JSON, then finish the training."""
    workflow = ConfigWorkflow(
        config_file=[f"configs/{name}" for name in files],
        logging_file=False,
        workflow_type="train",
        bundle_root=".",
        output_dir=out,
        ckpt_dir=f"{out}/models",
        crop_size=[16, 16, 16],
        epochs=4,
        steps_per_epoch=1,
        network_def=small_network(),
    )
    workflow.initialize()
    rounds = workflow.parser.get_parsed_content("train#rounds")
    targets = rounds.predict(1)
    if int(os.environ.get("RANK", "0")) == 0:
        found = {"frequencies": targets.frequencies().tolist(), "scans": sorted(targets.log_q)}
        with open(f"{out}/round-1.json", "w", encoding="utf-8") as file:  # noqa: PTH123
            json.dump(found, file)
        torch.save(targets.log_q, f"{out}/round-1.pt")
    if len(files) > 3:
        torch.distributed.barrier()  # the training begins by removing targets, which the other one may still read
        workflow.run()
        workflow.finalize()


def small_network():
    """Return a network that predicts within seconds."""
    small = {"growth_rate": 4, "stem_channels": 8, "block_layers": 1, "levels": 2}
    backbone = {
        "_target_": "medssl.networks.DenseFCN",
        "in_channels": "$len(@contrasts)",
        "out_channels": "@features",
        **small,
    }
    return {
        "_target_": "medssl.networks.ClusteringNetwork",
        "backbone": backbone,
        "features": "@features",
        "labels": "$len(@labels)",
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
