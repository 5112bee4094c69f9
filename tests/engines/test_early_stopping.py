from ignite.engine import Engine, Events

from medssl.engines import EarlyStopping


def test_validations_before_unlabeled_data_come_in_do_not_stop_a_training():
    evaluator = Engine(lambda *_: None)
    evaluator.state.key_metric_name = "score"
    stopping = EarlyStopping(evaluator, patience=2, begin=3)
    scores = iter([0.9, 0.8, 0.7, 0.3, 0.4, 0.5, 0.4, 0.4, 0.6])

    def validate(engine):
        evaluator.state.metrics = {"score": next(scores)}
        stopping._validated(evaluator)

    trainer = Engine(lambda *_: None)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, validate)
    stopping.attach(trainer)
    trainer.run([0], max_epochs=9)
    assert (trainer.state.iteration, stopping.best) == (8, 0.5)
