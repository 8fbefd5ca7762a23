/* The C interface of the compiled scans: plain structs of raw pointers, float and double.

   All arrays are contiguous and row-major. T steps, B sequences, N units, I inputs. A pointer that may be null says so.
   `scratch` is given by the caller, of the size that the matching *_scratch function returns (in elements). */
#ifndef PENDULA_SCANS_H
#define PENDULA_SCANS_H

#include <stdint.h>

#if defined(_WIN32)
#define PENDULA_API __declspec(dllexport)
#else
#define PENDULA_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    int64_t steps, batch, units, inputs;
    int32_t implicit, threads;
    const void *x;                   /* (T, B, I) */
    const void *y0, *z0;             /* (B, N) */
    const void *W, *W_z, *V, *b;     /* (N, N), (N, N), (N, I), (N,) or null */
    const void *dt, *gamma, *epsilon; /* (N,) */
    const void *tau;                 /* (T, B) or null */
    const int64_t *lengths;          /* (B,) or null */
    void *y;                         /* out (T, B, N), zero in the padding */
    void *s;                         /* out (T, B, N): tanh, for the backward pass; null without one */
    void *kept;                      /* out (K, B, N): z before step every, 2 every, ...; null: no backward pass */
    void *y_last, *z_last;           /* out (B, N) */
    void *scratch;
    int64_t every;
    int32_t packed;                  /* the scratch holds the weights, packed by an earlier call */
    int32_t narrow;                  /* operands of products are rounded to bfloat16: float, where pendula_narrows */
} pendula_cornn_forward;

typedef struct {
    int64_t steps, batch, units, inputs;
    int64_t every;                   /* steps of a chunk, as in the forward scan */
    int32_t implicit, threads;
    const void *x;
    const void *W, *W_z, *V;
    const void *dt, *gamma, *epsilon;
    const void *tau;
    const int64_t *lengths;
    const void *y0, *z0, *y, *s, *kept; /* as the forward scan took and left them */
    const void *by_y;                /* (T, B, N): cotangents of the outputs, or null */
    void *by_state_y, *by_state_z;   /* in and out (B, N): cotangents of the state */
    void *by_x;                      /* out (T, B, I), or null if not wanted */
    void *by_W, *by_W_z, *by_V, *by_b; /* out, as W, W_z, V and (N,) */
    void *by_dt, *by_gamma, *by_epsilon; /* double, added to (threads, N) each; null if not wanted */
    void *by_tau;                    /* out (T, B), or null */
    void *scratch;
    int32_t narrow;                  /* as in the forward scan, for products with the transposes of W and W_z */
} pendula_cornn_backward;

typedef struct {
    int64_t steps, batch, units, inputs, every;
    int32_t threads;
    const void *x;                   /* (T, B, I) */
    const void *w, *h, *alpha;       /* (N,) */
    const void *V, *b;               /* (N, I), (N,) or null */
    const void *tau;                 /* (T, B) or null */
    const int64_t *lengths;          /* (B,) or null */
    void *y, *z;                     /* in and out (B, N) */
    void *outputs;                   /* out (T, B, N), zero in the padding */
    void *s;                         /* out (T, B, N): tanh, or null if not wanted */
    void *kept;                      /* out (K, 2, B, N): y, z before step every, 2 every, ...; null if not wanted */
    void *scratch;
    int32_t narrow;                  /* operands of products are rounded to bfloat16: float, where pendula_narrows */
} pendula_unicornn_forward;

typedef struct {
    int64_t steps, batch, units, inputs, every;
    int32_t threads;
    const void *x;
    const void *w, *h, *alpha, *V, *b;
    const void *tau;
    const int64_t *lengths;
    const void *y0;                  /* (B, N), read with `outputs` only */
    const void *outputs;             /* as the forward scan left them; null: y is undone too */
    const void *s;                   /* as the forward scan left it; null: computed again */
    const void *kept;                /* as the forward scan left it, or null */
    const void *by_outputs;          /* (T, B, N) or null */
    const void *y, *z;               /* (B, N): the last state */
    void *by_y, *by_z;               /* in and out (B, N) */
    void *by_x;                      /* out (T, B, I), or null if not wanted */
    void *by_V;                      /* out (N, I) */
    void *by_w, *by_h, *by_alpha, *by_b; /* out (B, N) each */
    void *by_tau;                    /* out (T, B), or null */
    void *scratch;
    int32_t narrow;                  /* as in the forward scan, for V x and the product with the transpose of V */
} pendula_unicornn_backward;

typedef struct {
    int64_t steps, batch, units, inputs, every;
    int32_t threads;
    const void *x;                   /* (T, B, I) */
    const void *y0, *z0;             /* (B, N) */
    const void *W, *W_y, *V, *b;     /* (3 N, N), (N, N), (4 N, I), (4 N,) or null */
    const void *dt;                  /* (N,) */
    const void *tau;                 /* (T, B) or null */
    const int64_t *lengths;          /* (B,) or null */
    void *y;                         /* out (T, B, N), zero in the padding */
    void *gates;                     /* out (T, B, 4 N): s_1, s_2, both tanh, for the backward pass; null without one */
    void *kept;                      /* out (K, B, N): z before step every, 2 every, ...; null: no backward pass */
    void *y_last, *z_last;           /* out (B, N) */
    void *scratch;
    int32_t narrow;                  /* operands of products are rounded to bfloat16: float, where pendula_narrows */
} pendula_lem_forward;

typedef struct {
    int64_t steps, batch, units, inputs;
    int64_t every;                   /* steps of a chunk, as in the forward scan */
    int32_t threads;
    int32_t narrow;                  /* as in the forward scan, for products with the transposes of W, W_y and wide V */
    const void *x;
    const void *W, *W_y, *V, *dt;
    const void *tau;
    const int64_t *lengths;
    const void *y0, *z0, *y, *gates, *kept; /* as the forward scan took and left them */
    const void *by_y;                /* (T, B, N): cotangents of the outputs, or null */
    void *by_state_y, *by_state_z;   /* in and out (B, N): cotangents of the state */
    void *by_x;                      /* out (T, B, I), or null if not wanted */
    void *by_W, *by_W_y, *by_V, *by_b; /* out, as W, W_y, V and (4 N,) */
    void *by_dt;                     /* double, added to (threads, N); null if not wanted */
    void *by_tau;                    /* out (T, B); null without tau */
    void *scratch;
} pendula_lem_backward;

typedef struct {
    int64_t steps, batch, units, inputs;
    int64_t order, stages;           /* t and n */
    int64_t every;
    int32_t semi_implicit, linear;   /* of one stage, the highest derivative first; inputs on lines between samples */
    int32_t threads;
    const void *x;                   /* (T, B, I) */
    const void *Z0;                  /* (B, t N); linear: (B, (t + 1) N), the last drive at the end, NaN for none */
    const void *W, *U, *b;           /* (t, N, N), (N, I), (N,) or null */
    const void *dt, *gamma;          /* (N,), (t, N) */
    const double *tableau;           /* (n + 1, n): the rows of A, then b */
    const void *tau;                 /* (T, B) or null */
    const int64_t *lengths;          /* (B,) or null */
    void *y;                         /* out (T, B, N), zero in the padding */
    void *s;                         /* out (T, n, B, N): tanh, for the backward pass; null without one */
    void *kept;                      /* out (K, B, t N): Z before step every, 2 every, ...; null: no backward pass */
    void *Z_last;                    /* out, as Z0 */
    void *scratch;
} pendula_odernn_forward;

typedef struct {
    int64_t steps, batch, units, inputs, order, stages;
    int64_t every;                   /* steps of a chunk, as in the forward scan */
    int32_t semi_implicit, linear, threads;
    const void *x;
    const void *Z0, *W, *U, *dt, *gamma;
    const double *tableau;
    const void *tau;
    const int64_t *lengths;
    const void *s, *kept;            /* as the forward scan left them */
    const void *by_y;                /* (T, B, N): cotangents of the outputs, or null */
    void *by_Z;                      /* in and out, as Z0: cotangents of the state */
    void *by_x;                      /* out (T, B, I), or null if not wanted */
    void *by_W, *by_U, *by_b;        /* out, as W, U and (N,) */
    void *by_dt, *by_gamma;          /* double, added to (threads, N) and (threads, t, N); null if not wanted */
    void *by_tau;                    /* out (T, B), or null */
    void *scratch;
} pendula_odernn_backward;

/* names of the instruction sets compiled in and usable here, best first, separated by spaces */
PENDULA_API const char *pendula_instruction_sets(void);
/* 1 if the set of that name is used from now on, 0 if it is not there */
PENDULA_API int pendula_use_instruction_set(const char *name);
/* From now on a thread is started for so many operations, and not for fewer. */
PENDULA_API void pendula_start_threads_for(int64_t operations);
/* Whether threads are started for a call where the process has OpenMP's too. So it is in a process that was forked. */
PENDULA_API void pendula_stay_off_openmp(int stay);
/* Whether the set in use and the processor multiply bfloat16 numbers. */
PENDULA_API int pendula_narrows(void);
/* bytes of a struct of this file, 0 if there is none of that name: the caller compares them with what it will pass */
PENDULA_API int64_t pendula_sizeof(const char *structure);

/* wishes for large pages for memory that is about to be written for the first time: far fewer faults */
PENDULA_API void pendula_in_large_pages(void *array, int64_t bytes);

PENDULA_API int64_t pendula_cornn_forward_scratch(int64_t bytes, int64_t units, int64_t inputs, int64_t batch);
PENDULA_API int64_t pendula_cornn_backward_scratch(const pendula_cornn_backward *arguments, int64_t bytes);
PENDULA_API int64_t pendula_unicornn_forward_scratch(const pendula_unicornn_forward *arguments, int64_t bytes);
PENDULA_API int64_t pendula_unicornn_backward_scratch(const pendula_unicornn_backward *arguments, int64_t bytes);
PENDULA_API int64_t pendula_lem_forward_scratch(int64_t bytes, int64_t units, int64_t inputs, int64_t batch);
PENDULA_API int64_t pendula_lem_backward_scratch(const pendula_lem_backward *arguments, int64_t bytes);
PENDULA_API int64_t pendula_odernn_forward_scratch(const pendula_odernn_forward *arguments, int64_t bytes);
PENDULA_API int64_t pendula_odernn_backward_scratch(const pendula_odernn_backward *arguments, int64_t bytes);

/* bytes: 4 for float, 8 for double */
PENDULA_API void pendula_cornn_forward_run(const pendula_cornn_forward *arguments, int64_t bytes);
PENDULA_API void pendula_cornn_backward_run(const pendula_cornn_backward *arguments, int64_t bytes);
PENDULA_API void pendula_unicornn_forward_run(const pendula_unicornn_forward *arguments, int64_t bytes);
PENDULA_API void pendula_unicornn_backward_run(const pendula_unicornn_backward *arguments, int64_t bytes);
PENDULA_API void pendula_lem_forward_run(const pendula_lem_forward *arguments, int64_t bytes);
PENDULA_API void pendula_lem_backward_run(const pendula_lem_backward *arguments, int64_t bytes);
PENDULA_API void pendula_odernn_forward_run(const pendula_odernn_forward *arguments, int64_t bytes);
PENDULA_API void pendula_odernn_backward_run(const pendula_odernn_backward *arguments, int64_t bytes);

#ifdef __cplusplus
}
#endif
#endif
