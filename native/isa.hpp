// What each network's file offers for an instruction set. No guard: scans.cpp includes it once per set.
#include "scans.h"
#include "team.h"

namespace pendula {
namespace PENDULA_ISA {

template <typename T>
bool cornn_narrows();
template <typename T>
int64_t cornn_forward_scratch(int64_t units, int64_t inputs, int64_t batch);
template <typename T>
void cornn_forward_pack(const pendula_cornn_forward& a);
template <typename T>
void cornn_forward_slice(const pendula_cornn_forward& a, int64_t begin, int64_t end, const Team& team);
template <typename T>
int64_t parts_of_units(int64_t units);
template <typename T>
int64_t cornn_backward_scratch(const pendula_cornn_backward& a);
template <typename T>
void cornn_backward_pack(const pendula_cornn_backward& a);
template <typename T>
void cornn_backward_slice(const pendula_cornn_backward& a, int64_t begin, int64_t end, int64_t thread,
                          const Team& team);
template <typename T>
void cornn_backward_sum(const pendula_cornn_backward& a, int64_t threads);

template <typename T>
int64_t unicornn_forward_scratch(const pendula_unicornn_forward& a);
template <typename T>
void unicornn_forward_pack(const pendula_unicornn_forward& a);
template <typename T>
void unicornn_forward_slice(const pendula_unicornn_forward& a, int64_t begin, int64_t end, int64_t part, int64_t parts);
template <typename T>
int64_t unicornn_backward_scratch(const pendula_unicornn_backward& a);
template <typename T>
void unicornn_backward_pack(const pendula_unicornn_backward& a);
template <typename T>
void unicornn_backward_slice(const pendula_unicornn_backward& a, int64_t begin, int64_t end, int64_t thread,
                             const Team& team);
template <typename T>
void unicornn_backward_sum(const pendula_unicornn_backward& a, int64_t threads);

template <typename T>
int64_t lem_forward_scratch(int64_t units, int64_t inputs, int64_t batch);
template <typename T>
void lem_forward_pack(const pendula_lem_forward& a);
template <typename T>
void lem_forward_slice(const pendula_lem_forward& a, int64_t begin, int64_t end, const Team& team);
template <typename T>
int64_t lem_backward_scratch(const pendula_lem_backward& a);
template <typename T>
void lem_backward_pack(const pendula_lem_backward& a);
template <typename T>
void lem_backward_slice(const pendula_lem_backward& a, int64_t begin, int64_t end, int64_t thread);
template <typename T>
void lem_backward_sum(const pendula_lem_backward& a, int64_t threads);

template <typename T>
int64_t odernn_forward_scratch(const pendula_odernn_forward& a);
template <typename T>
void odernn_forward_pack(const pendula_odernn_forward& a);
template <typename T>
void odernn_forward_slice(const pendula_odernn_forward& a, int64_t begin, int64_t end);
template <typename T>
int64_t odernn_backward_scratch(const pendula_odernn_backward& a);
template <typename T>
void odernn_backward_pack(const pendula_odernn_backward& a);
template <typename T>
void odernn_backward_slice(const pendula_odernn_backward& a, int64_t begin, int64_t end, int64_t thread);
template <typename T>
void odernn_backward_sum(const pendula_odernn_backward& a, int64_t threads);

}  // namespace PENDULA_ISA
}  // namespace pendula
