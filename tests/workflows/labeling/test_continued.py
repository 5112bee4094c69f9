import pytest
import yaml

from medssl.errors import CheckpointError
from medssl.workflows.labeling.continued import network_options
from medssl.workflows.models import packaged_bundle


def bundle(tmp_path, network):
    for name in ("configs", "models"):
        (tmp_path / name).mkdir()
    (tmp_path / "configs" / "inference.yaml").write_text(yaml.safe_dump({"network_def": network}))
    (tmp_path / "models" / "model.pt").touch()
    return tmp_path


def test_the_packaged_weights_need_no_settings():
    found = network_options(None)
    weights = packaged_bundle() / "models" / "model.pt"
    assert found == {"init": str(weights), "network": "dense-fcn", "clustering_head": False, "settings": {}}


def test_the_shape_of_a_network_is_taken_over(tmp_path):
    network = {"_target_": "medssl.networks.DenseFCN", "in_channels": 2, "out_channels": 4, "growth_rate": 4}
    assert network_options(bundle(tmp_path, network))["settings"] == {"network_def#growth_rate": 4}


def test_a_clustering_head_is_gone_on_with(tmp_path):
    backbone = {"_target_": "medssl.networks.DenseFCN", "in_channels": 2, "out_channels": 16, "levels": 2}
    network = {"_target_": "medssl.networks.ClusteringNetwork", "backbone": backbone, "features": 16}
    found = network_options(bundle(tmp_path, network))
    assert found["clustering_head"] is True
    assert found["settings"] == {"network_def#levels": 2}


def test_a_network_of_others_is_refused_with_a_way_out(tmp_path):
    with pytest.raises(CheckpointError, match="pretrained off"):
        network_options(bundle(tmp_path, {"_target_": "monai.networks.nets.SwinUNETR"}))
