(** T11. Guidance D_w = D_0 + w (D_c - D_0): the quadratic form falls at most to -(w - 1) Lambda, so the step stays
    one-to-one while w < 1 + rho / ((1 - rho) Lambda). *)

From Coq Require Import Reals Lra.
From Coquelicot Require Import Coquelicot.
From Fpjax Require Import space t2.
Open Scope R_scope.

(** Jacobians as quadratic forms at one point: J_c >= 0 and J_0 <= Lambda. *)
Theorem t11_quadratic_form (V : NormedModule R_AbsRing) (ip : InnerProduct V) (J_0 J_c : V -> V) (Lambda rho w : R)
  (HJ_c : forall v, 0 <= ⟨J_c v, v⟩)
  (HJ_0 : forall v, ⟨J_0 v, v⟩ <= Lambda * norm v ^ 2)
  (Hw : 1 <= w)
  (Hrho : 0 <= rho < 1) :
  let J_w := fun v => J_0 v [+] w [*] (J_c v [-] J_0 v) in
  forall v, - ((w - 1) * Lambda) * norm v ^ 2 <= ⟨J_w v, v⟩ /\
    (rho - (1 - rho) * ((w - 1) * Lambda)) * norm v ^ 2 <= ⟨rho [*] v [+] (1 - rho) [*] J_w v, v⟩.
Proof.
  intros J_w v.
  assert (H : - ((w - 1) * Lambda) * norm v ^ 2 <= ⟨J_w v, v⟩).
  { unfold J_w.
    replace (J_0 v [+] w [*] (J_c v [-] J_0 v)) with (w [*] J_c v [+] (- (w - 1)) [*] J_0 v) by vector.
    rewrite inner_plus, !inner_scal.
    assert (H1 := Rmult_le_compat_l w _ _ ltac:(lra) (HJ_c v)).
    assert (H2 := Rmult_le_compat_l (w - 1) _ _ ltac:(lra) (HJ_0 v)); lra. }
  split; [exact H|].
  rewrite inner_plus, !inner_scal, inner_norm.
  assert (H1 := Rmult_le_compat_l (1 - rho) _ _ ltac:(lra) H); lra.
Qed.

(** The safe guidance is exactly what keeps that modulus positive. *)
Theorem t11_limit (Lambda rho w : R)
  (HLambda : 0 < Lambda)
  (Hrho : 0 <= rho < 1) :
  0 < rho - (1 - rho) * ((w - 1) * Lambda) <-> w < 1 + rho / ((1 - rho) * Lambda).
Proof.
  assert (H : 0 < (1 - rho) * Lambda) by (apply Rmult_lt_0_compat; lra).
  split; intros Hw.
  - assert (w - 1 < rho / ((1 - rho) * Lambda)) by (apply Rlt_div_r; lra); lra.
  - assert (H1 : w - 1 < rho / ((1 - rho) * Lambda)) by lra.
    apply Rlt_div_r in H1; lra.
Qed.

(** Below the limit the guided step is strongly monotone, hence takes no value twice. *)
Theorem t11_unique (V : NormedModule R_AbsRing) (ip : InnerProduct V) (D_0 D_c : V -> V) (Lambda rho w : R)
  (HD_c : forall u v, 0 <= ⟨D_c u [-] D_c v, u [-] v⟩)
  (HD_0 : forall u v, ⟨D_0 u [-] D_0 v, u [-] v⟩ <= Lambda * norm (u [-] v) ^ 2)
  (HLambda : 0 < Lambda)
  (Hrho : 0 <= rho < 1)
  (Hw : 1 <= w < 1 + rho / ((1 - rho) * Lambda)) :
  let F := fun y => rho [*] y [+] (1 - rho) [*] (D_0 y [+] w [*] (D_c y [-] D_0 y)) in
  let m := rho - (1 - rho) * ((w - 1) * Lambda) in
  0 < m /\ (forall u v, m * norm (u [-] v) ^ 2 <= ⟨F u [-] F v, u [-] v⟩) /\ (forall u v, F u = F v -> u = v).
Proof.
  intros F m.
  assert (Hm : 0 < m) by (apply t11_limit; lra).
  assert (HF : forall u v, m * norm (u [-] v) ^ 2 <= ⟨F u [-] F v, u [-] v⟩).
  { intros u v; unfold F, m.
    match goal with |- _ <= ⟨?e, _⟩ =>
      replace e with (rho [*] (u [-] v) [+] (1 - rho) [*] (w [*] (D_c u [-] D_c v) [+] (- (w - 1)) [*] (D_0 u [-] D_0 v)))
        by vector end.
    rewrite inner_plus, !inner_scal, inner_plus, !inner_scal, inner_norm.
    assert (H1 := Rmult_le_compat_l w _ _ ltac:(lra) (HD_c u v)).
    assert (H2 := Rmult_le_compat_l (w - 1) _ _ ltac:(lra) (HD_0 u v)).
    assert (H3 : 0 <= (1 - rho) * (w * ⟨D_c u [-] D_c v, u [-] v⟩)) by (apply Rmult_le_pos; lra).
    assert (H4 := Rmult_le_compat_l (1 - rho) _ _ ltac:(lra) H2); lra. }
  split; [exact Hm|]; split; [exact HF|].
  now apply (t2_unique V ip F m).
Qed.

(** The limit is sharp: at it, D_0 = Lambda I and D_c = 0 give a step that sends everything to 0. *)
Theorem t11_sharp (V : NormedModule R_AbsRing) (Lambda rho w : R)
  (HLambda : 0 < Lambda)
  (Hrho : 0 <= rho < 1)
  (Hw : w = 1 + rho / ((1 - rho) * Lambda)) :
  forall y : V, rho [*] y [+] (1 - rho) [*] (Lambda [*] y [+] w [*] (zero [-] Lambda [*] y)) = zero.
Proof. intros y; subst; vector_by ltac:(field; lra). Qed.
