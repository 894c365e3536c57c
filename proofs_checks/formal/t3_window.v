(** T3, the spectrum window: (1 - rho) ||I - J|| < 1 exactly when the spectrum of J lies inside
    ( -rho / (1 - rho), (2 - rho) / (1 - rho) ): for one eigenvalue, for a diagonalised J, for a symmetric J. *)

From Coq Require Import Reals Lra Lia.
From Coquelicot Require Import Coquelicot.
From Fpjax Require Import space.
Open Scope R_scope.

Theorem t3_window_scalar (rho lambda : R)
  (Hrho : 0 <= rho < 1) :
  Rabs ((1 - rho) * (1 - lambda)) < 1 <-> - rho / (1 - rho) < lambda < (2 - rho) / (1 - rho).
Proof.
  split.
  - intros H; apply Rabs_def2 in H; destruct H as [H1 H2].
    split; [apply Rlt_div_l|apply Rlt_div_r]; lra.
  - intros [H1 H2]; apply Rlt_div_l in H1; [|lra]; apply Rlt_div_r in H2; [|lra].
    apply Rabs_def1; lra.
Qed.

(** The finitely many eigenvalues lambda 0 .. lambda n of a diagonalised J: the worst one decides. *)
Theorem t3_window_diagonal (rho : R) (n : nat) (lambda : nat -> R)
  (Hrho : 0 <= rho < 1) :
  (forall i, (i <= n)%nat -> - rho / (1 - rho) < lambda i < (2 - rho) / (1 - rho)) <->
  exists kappa, 0 <= kappa < 1 /\ forall v : nat -> R,
    sum_f_R0 (fun i => ((1 - rho) * (1 - lambda i) * v i) ^ 2) n <= kappa ^ 2 * sum_f_R0 (fun i => v i ^ 2) n.
Proof.
  split.
  - intros H.
    assert (E : exists kappa, 0 <= kappa < 1 /\ forall i, (i <= n)%nat -> Rabs ((1 - rho) * (1 - lambda i)) <= kappa).
    { induction n as [|n IH].
      - exists (Rabs ((1 - rho) * (1 - lambda O))); split.
        + split; [apply Rabs_pos|apply t3_window_scalar; auto].
        + intros i Hi; replace i with O by lia; lra.
      - destruct IH as (k & Hk & IH); [intros i Hi; apply H; lia|].
        exists (Rmax k (Rabs ((1 - rho) * (1 - lambda (S n))))); split.
        + split; [apply Rle_trans with k; [lra|apply Rmax_l]|].
          apply Rmax_lub_lt; [lra|apply t3_window_scalar; auto].
        + intros i Hi; destruct (Nat.eq_dec i (S n)) as [->|Hne]; [apply Rmax_r|].
          apply Rle_trans with k; [apply IH; lia|apply Rmax_l]. }
    destruct E as (kappa & Hk & E); exists kappa; split; [exact Hk|]; intros v.
    rewrite scal_sum; apply sum_Rle; intros i Hi.
    rewrite Rpow_mult_distr, (Rmult_comm (v i ^ 2)).
    apply Rmult_le_compat_r; [apply pow2_ge_0|].
    rewrite <- (pow2_abs ((1 - rho) * _)); apply pow_incr; split; [apply Rabs_pos|now apply E].
  - intros (kappa & Hk & H) i Hi; apply t3_window_scalar; [exact Hrho|].
    specialize (H (fun j => if Nat.eqb j i then 1 else 0)).
    assert (E : forall c : nat -> R, forall m, (i <= m)%nat ->
      sum_f_R0 (fun j => (c j * (if Nat.eqb j i then 1 else 0)) ^ 2) m = c i ^ 2).
    { assert (Z : forall c : nat -> R, forall m, (m < i)%nat ->
        sum_f_R0 (fun j => (c j * (if Nat.eqb j i then 1 else 0)) ^ 2) m = 0).
      { intros c m Hm; apply sum_eq_R0; intros j Hj.
        replace (Nat.eqb j i) with false by (symmetry; apply Nat.eqb_neq; lia); ring. }
      intros c m Hm; induction m as [|m IH].
      - replace i with O by lia; simpl; ring.
      - rewrite tech5; destruct (Nat.eq_dec i (S m)) as [Heq|Hne].
        + rewrite (Z c m) by lia; rewrite <- Heq, Nat.eqb_refl; ring.
        + rewrite IH by lia; replace (Nat.eqb (S m) i) with false by (symmetry; apply Nat.eqb_neq; lia); ring. }
    assert (E1 := E (fun j => (1 - rho) * (1 - lambda j)) n Hi); assert (E2 := E (fun _ => 1) n Hi).
    rewrite (sum_eq _ (fun j => (if Nat.eqb j i then 1 else 0) ^ 2)) in E2 by (intros; ring).
    cbv beta in E1, H; rewrite E1, E2 in H.
    apply Rle_lt_trans with kappa; [|lra].
    apply Rsqr_incr_0_var; [|lra].
    rewrite <- Rsqr_abs, !Rsqr_pow2; lra.
Qed.

(** A symmetric operator whose quadratic form is within c has norm within c. *)
Lemma symmetric_norm {V : NormedModule R_AbsRing} {ip : InnerProduct V} (M : V -> V) (c : R) :
  (forall u v, M (u [+] v) = M u [+] M v) ->
  (forall a u, M (a [*] u) = a [*] M u) ->
  (forall u v, ⟨M u, v⟩ = ⟨u, M v⟩) ->
  (forall v, Rabs ⟨M v, v⟩ <= c * norm v ^ 2) ->
  forall v, norm (M v) <= c * norm v.
Proof.
  intros Hplus Hscal Hsym Hc u.
  assert (Hu := norm_ge_0 u); assert (HMu := norm_ge_0 (M u)).
  destruct Hu as [Hu|Hu].
  2:{ symmetry in Hu; assert (E := norm_eq_zero _ Hu); rewrite E.
      replace (M zero) with (zero : V); [rewrite norm_zero; lra|].
      replace (zero : V) with (0 [*] (zero : V)) at 2 by vector.
      rewrite Hscal; vector. }
  destruct HMu as [HMu|HMu].
  2:{ rewrite <- HMu; specialize (Hc u); assert (H := Rabs_pos ⟨M u, u⟩).
      assert (0 <= c * norm u ^ 2) by lra.
      assert (0 < norm u ^ 2) by now apply pow_lt.
      apply Rmult_le_pos; [|lra]; apply Rmult_le_reg_r with (norm u ^ 2); lra. }
  set (v := (norm u / norm (M u)) [*] M u).
  assert (Hv : norm v ^ 2 = norm u ^ 2).
  { unfold v; rewrite norm_scal_eq, Rabs_pos_eq.
    - field; lra.
    - left; now apply Rdiv_lt_0_compat. }
  assert (H4 : 4 * ⟨M u, v⟩ = ⟨M (u [+] 1 [*] v), u [+] 1 [*] v⟩ - ⟨M (u [+] (-1) [*] v), u [+] (-1) [*] v⟩).
  { rewrite !Hplus, !Hscal; inner_expand.
    rewrite (Hsym v u), (inner_sym v (M u)); ring. }
  assert (H1 := Hc (u [+] 1 [*] v)); assert (H2 := Hc (u [+] (-1) [*] v)).
  rewrite norm_plus_scal_sqr, Hv in H1, H2.
  apply Rabs_le_between in H1; apply Rabs_le_between in H2.
  assert (E : ⟨M u, v⟩ = norm u * norm (M u)).
  { unfold v; rewrite inner_scal_r, inner_norm; field; lra. }
  assert (norm u * norm (M u) <= norm u * (c * norm u)) by lra.
  now apply Rmult_le_reg_l with (norm u).
Qed.

(** The window for a symmetric J with spectrum in [lower, upper]. *)
Theorem t3_window_symmetric (V : NormedModule R_AbsRing) (ip : InnerProduct V) (J : V -> V) (rho lower upper : R)
  (Hrho : 0 <= rho < 1)
  (Hplus : forall u v, J (u [+] v) = J u [+] J v)
  (Hscal : forall a u, J (a [*] u) = a [*] J u)
  (Hsymmetric : forall u v, ⟨J u, v⟩ = ⟨u, J v⟩)
  (Hlower : forall v, lower * norm v ^ 2 <= ⟨J v, v⟩)
  (Hupper : forall v, ⟨J v, v⟩ <= upper * norm v ^ 2)
  (Hwindow : - rho / (1 - rho) < lower /\ upper < (2 - rho) / (1 - rho)) :
  let kappa := (1 - rho) * Rmax (Rabs (1 - lower)) (Rabs (1 - upper)) in
  (lower <= upper -> kappa < 1) /\ (forall v, norm ((1 - rho) [*] (v [-] J v)) <= kappa * norm v).
Proof.
  intros kappa; split.
  - intros H; unfold kappa.
    assert (E : forall l, - rho / (1 - rho) < l < (2 - rho) / (1 - rho) -> (1 - rho) * Rabs (1 - l) < 1).
    { intros l Hl; apply t3_window_scalar in Hl; [|exact Hrho].
      rewrite Rabs_mult, (Rabs_pos_eq (1 - rho)) in Hl; lra. }
    apply Rmax_case; apply E; lra.
  - apply symmetric_norm.
    + intros u v; rewrite Hplus; vector.
    + intros a u; rewrite Hscal; vector.
    + intros u v; inner_expand; rewrite Hsymmetric; ring.
    + intros v; rewrite inner_scal; replace (v [-] J v) with (v [+] (-1) [*] J v) by vector.
      rewrite inner_plus, inner_scal, inner_norm, Rabs_mult, (Rabs_pos_eq (1 - rho)) by lra.
      unfold kappa; rewrite Rmult_assoc; apply Rmult_le_compat_l; [lra|].
      assert (H1 := Hlower v); assert (H2 := Hupper v); assert (H3 := pow2_ge_0 (norm v)).
      set (K := Rmax _ _).
      assert (K1 : Rabs (1 - lower) <= K) by apply Rmax_l; assert (K2 : Rabs (1 - upper) <= K) by apply Rmax_r.
      apply Rabs_le_between in K1; apply Rabs_le_between in K2; apply Rabs_le_between.
      assert ((1 - lower) * norm v ^ 2 <= K * norm v ^ 2) by (apply Rmult_le_compat_r; lra).
      assert (- K * norm v ^ 2 <= (1 - upper) * norm v ^ 2) by (apply Rmult_le_compat_r; lra).
      lra.
Qed.
