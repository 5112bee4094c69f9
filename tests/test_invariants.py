"""What SSLDEC has to hold to, whatever changes; the tests that check it say so: "Invariant 4: ..."."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

INVARIANTS = {
    1: "q and p are finite and sum to 1 in every precision; q knows distances to the centers only",
    2: "head, gradients, confidence ceiling and loss are the formulas; p and f are constants",
    3: "dec doubles the log-odds and weighs them with the masses; prior with pi like f is sharpen",
    4: "f does not depend on tiles, overlap, order, batches or processes; outside the mask nothing counts",
    5: "labeled targets are one-hot in every round; labels change f through q on the unlabeled scans alone",
    6: "each schedule starts and mixes its rounds as it says; a seed gives one run, bit for bit",
    7: "networks have the published parameter counts and return the sides they are given",
    8: "no weight decay on centers; dead classes and empty masks stay finite; checkpoints keep it all",
    9: "iSeg's files are read and written as the challenge has them",
    10: "no test scan is trained on unsaid; two processes find what one finds",
}
"""Number of each invariant, and what it says."""


TESTS = {
    1: (
        "test_assignment_is_invariant_to_joint_translation_and_rotation",
        "test_rows_of_q_and_p_sum_to_one_for_embeddings_up_to_ten_thousand",
    ),
    2: (
        "test_assignment_equals_the_textbook_formula",
        "test_alpha_one_gives_one_over_one_plus_the_squared_distance",
        "test_gradients_equal_their_closed_form",
        "test_confidence_ceiling_at_a_center",
        "test_no_gradient_reaches_the_target_or_the_masses",
        "test_kl_is_at_least_zero_and_zero_between_equals",
        "test_one_hot_target_gives_the_cross_entropy",
        "test_gradient_reaches_the_prediction_only",
    ),
    3: (
        "test_dec_of_uniform_assignments_and_masses_is_uniform",
        "test_dec_squares_the_odds_and_weighs_them_with_the_masses",
        "test_dec_flips_the_likeliest_class_at_the_root_of_the_mass_ratio",
        "test_prior_proportional_to_the_masses_equals_sharpen",
        "test_scaling_the_masses_changes_nothing",
    ),
    4: (
        "test_two_processes_predict_what_one_does_and_train_all_rounds",
        "test_mass_in_parts_equals_the_mass_of_the_whole",
        "test_what_stands_outside_the_mask_has_no_mass",
        "test_what_stands_outside_the_mask_changes_neither_loss_nor_gradient",
        "test_what_lies_outside_the_mask_does_not_count",
        "test_frequencies_do_not_depend_on_windows_their_overlap_order_or_number",
        "test_what_lies_outside_the_mask_changes_neither_frequencies_nor_targets",
        "test_two_processes_make_the_frequencies_and_targets_of_one",
    ),
    5: (
        "test_labels_do_not_enter_the_frequencies_of_a_round",
        "test_labeled_crops_keep_their_labels_in_every_round",
        "test_other_labels_leave_the_frequencies_alone_while_the_network_answers_the_same",
    ),
    6: (
        "test_alternate_takes_turns_and_never_mixes",
        "test_turns_divide_the_steps_of_a_round",
        "test_the_same_seed_gives_the_same_weights",
        "test_reinit_starts_each_round_from_new_weights_that_follow_the_seed",
        "test_warm_rounds_go_on_with_the_weights_they_have",
        "test_labeled_crops_keep_their_labels_in_every_round",
    ),
    7: (
        "test_parameter_count_is_that_of_the_specification",
        "test_totals_for_three_eight_and_sixteen_features",
        "test_parameter_count_is_that_of_the_specification",
        "test_published_totals",
        "test_every_network_returns_the_sides_it_is_given",
        "test_any_size_comes_back_as_logits_of_that_size",
    ),
    8: (
        "test_targets_stay_finite_with_dead_clusters_and_without_any_mass",
        "test_dead_clusters_are_named",
        "test_empty_mask_gives_zero_with_a_graph",
        "test_cross_entropy_without_a_known_voxel_is_zero_with_a_graph",
        "test_a_file_of_weights_keeps_the_whole_head",
        "test_centers_take_no_weight_decay",
        "test_an_empty_mask_gives_exactly_zero_with_a_graph",
        "test_a_class_without_any_mass_is_named_and_targets_stay_finite",
        "test_stopped_and_resumed_equals_uninterrupted",
    ),
    9: (
        "test_outside_the_mask_is_background_for_certain",
        "test_raw_values_are_mapped_by_abbreviation",
        "test_trailing_axis_is_dropped_and_no_voxel_is_cropped",
        "test_iseg_labels_are_mapped_by_name",
        "test_analyze_reference_keeps_shape_and_affine",
        "test_scans_of_iseg_come_back_in_their_own_shape",
    ),
    10: (
        "test_two_processes_predict_what_one_does_and_train_all_rounds",
        "test_two_processes_find_the_gradients_and_the_loss_of_one",
        "test_unlabeled_leak_is_refused_unless_transductive",
        "test_labeled_leak_is_always_refused",
        "test_scores_of_a_transductive_model_say_so",
        "test_a_transductive_comparison_says_so_even_if_labeled_only_wins",
        "test_two_processes_make_the_frequencies_and_targets_of_one",
        "test_volumes_of_a_transductive_model_say_so",
        "test_a_held_out_scan_among_the_unlabeled_is_refused",
        "test_a_test_scan_that_training_would_see_is_refused",
        "test_a_transductive_run_says_so",
        "test_the_rounds_of_a_transductive_run_say_so",
    ),
}
"""Number -> the tests that hold it, each part of the sentence by one at least."""


@pytest.mark.parametrize("number", INVARIANTS)
def test_an_invariant_has_the_tests_that_hold_it(number):
    """None of them may go, or lose its number, unnoticed."""
    assert set(TESTS[number]) == named_tests().get(number, set()), INVARIANTS[number]


@cache
def named_tests() -> dict[int, set[str]]:
    """Return the tests whose docstrings begin with the number of an invariant."""
    found: dict[int, set[str]] = {}
    for path in Path(__file__).parent.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                told = re.match(r"Invariants? ((?:\d+(?:, | and )?)+)", ast.get_docstring(node) or "")
                for number in re.findall(r"\d+", told.group(1)) if told else ():
                    found.setdefault(int(number), set()).add(node.name)
    return found
