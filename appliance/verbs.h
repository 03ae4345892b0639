/* The verbs of `nightjar`. Each takes its own command line (argv[0] is the verb's name) and returns the exit status:
 * 0 done, 1 failed, 2 called wrongly. Data goes to stdout, talk to stderr. */
#ifndef NJ_VERBS_H
#define NJ_VERBS_H

int nj_verb_run(int argc, char **argv);
int nj_verb_batch(int argc, char **argv);
int nj_verb_answers(int argc, char **argv);
int nj_verb_inspect(int argc, char **argv);
int nj_verb_tokenize(int argc, char **argv);
int nj_verb_detokenize(int argc, char **argv);
int nj_verb_template(int argc, char **argv);
int nj_verb_logits(int argc, char **argv);
int nj_verb_perplexity(int argc, char **argv);
int nj_verb_quantize(int argc, char **argv);
int nj_verb_bench(int argc, char **argv);
int nj_verb_synth(int argc, char **argv);

#endif
