"""Files that people mistake for checkpoints are called by their name."""
import pytest

from lib_sdtrain.model.kinds import describe_not_a_checkpoint, kind_of

# Keys as the named programs write them.
FILES = {
    "checkpoint": [
        {"model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3), "first_stage_model.quant_conv.bias": (8,)},
        {"unet/conv_in.weight": (320, 4, 3, 3), "vae/encoder.conv_in.weight": (128, 3, 3, 3)},
        {"control_model.input_blocks.0.0.weight": (1,), "model.diffusion_model.time_embed.0.weight": (1, 1)},
    ],
    "lora": [
        {"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": (4, 320)},  # kohya
        {"unet.down_blocks.0.attentions.0.to_q.lora_A.weight": (4, 320)},  # peft
        {"unet.down_blocks.0.attentions.0.to_q.lora.down.weight": (4, 320)},  # diffusers
        {"lora_unet_mid_block_attentions_0_proj_in.hada_w1_a": (4, 4), "x.alpha": ()},  # lycoris
        {"lora_te_text_model_encoder_layers_0_mlp_fc1.lokr_w1": (4, 4)},
    ],
    "embedding": [
        {"string_to_param.*": (2, 768)},
        {"emb_params": (1, 768)},
        {"clip_l": (2, 768), "clip_g": (2, 1280)},
        {"<cat-toy>": (768,)},
    ],
    "vae": [
        {"encoder.conv_in.weight": (128, 3, 3, 3), "quant_conv.bias": (8,)},
        {"first_stage_model.decoder.conv_in.weight": (512, 4, 3, 3)},
    ],
    "unet": [{"conv_in.weight": (320, 4, 3, 3)}, {"input_blocks.0.0.weight": (320, 4, 3, 3)}],
    "text_encoder": [{"text_model.embeddings.position_ids": (1, 77)}],
    "controlnet": [{"controlnet_cond_embedding.conv_in.weight": (1,)}, {"control_model.time_embed.0.weight": (1, 1)}],
    "hypernetwork": [{"768.0.linear.0.weight": (1536, 768)}],
    "sd3": [{"model.diffusion_model.joint_blocks.0.x": (1,), "model.diffusion_model.x_embedder.proj.weight": (1,)}],
    "upscaler": [{"model.0.weight": (64, 3, 3, 3)}, {"conv_first.weight": (64, 3, 3, 3)}],
    "unknown": [{}, {"weight": (10,)}],
}


@pytest.mark.parametrize(("name", "shapes"), [(name, shapes) for name, many in FILES.items() for shapes in many])
def test_each_kind_is_recognised(name, shapes):
    assert kind_of(shapes) == name
    said = describe_not_a_checkpoint(shapes)
    assert (said is None) == (name == "checkpoint")


def test_the_message_names_the_file_and_where_it_belongs():
    what, fix = describe_not_a_checkpoint(FILES["lora"][0])
    assert what == "this is a LoRA, not a checkpoint"
    assert "--lora" in fix
