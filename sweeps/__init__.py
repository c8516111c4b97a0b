"""Honest sweeps over small language models.

The words of this project, as the code uses them:

    sweep       one question, its trials and its ledger: a folder under results/
    study       a sweep that compares named arms with a baseline
    arm         one change of the baseline; the baseline itself is an arm as well
    trial       one config, trained once; its id is the digest of the config
    attempt     one stretch of a trial on one worker, from its last checkpoint to its next stop
    rung        a share of a trial's own token budget at which a policy compares trials
    pool        the trials that a policy compares with one another
    policy      the rule of early stopping: a fold over the ledger's rows
    decision    what a policy does with a trial at a rung: continue, pause, promote or stop
    promotion   the decision that a paused trial continues to the next rung
    audit       a stopped trial that is trained to the end anyway, to see what stopping it cost
    outcome     the problem of a trial, by a stated rule: spiked, stuck, overfitted, ...
    look        the moment when verdicts are formed, after so many seeds; between looks there is none
    verdict     the conclusion that the runs of an arm support about its difference from the baseline
    record      what the training loop yields at an evaluation
    row         one line of the ledger; a `measured` row holds a record
"""
